"""Comparison of our multimodal models with MMRec, which runs from a checkout of its repository.

This project contains no code of MMRec. Run `git clone https://github.com/enoche/MMRec`, and pass the folder to
`speed.py --parts multimodal --mmrec DIR` to compare times, or to `parity.py --mmrec DIR` to compare values.

For times, each side of each model runs in its own process. Each process has its own peak memory, and the changes that
MMRec needs (a replacement for a missing package, no transfer to a GPU) affect nothing else. Both sides get the same
interactions, the same batch size and the same two modalities: the text of the dataset, and random numbers of the width
of CLIP's image features, because MMRec's models need both.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from baselines.registry import REGISTRY
from benchmarks.upstream.subprocesses import run_in_subprocess
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import DataError, HellmError, MissingDependency
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.system import runtime
from hellm_recbole.system.console import run_main
from hellm_recbole.training.sampling import PairSource
from hellm_recbole.training.trainer import evaluate
from hellm_recbole.types import PairBatch, TrainData

MODELS = ("VBPR", "LightGCN", "FREEDOM", "BM3", "SLMRec", "GRCN", "LATTICE")
IMAGE_WIDTH = 512  # width of the image features of CLIP ViT-B/32
FEATURE_FILES = {"image": "v.npy", "text": "t.npy"}
EVAL_USERS = 4096  # users scored at a time by MMRec
TOP_K = 50  # length of the lists of MMRec
CPU = torch.device("cpu")


class _Config(dict[str, Any]):
    """Configuration of MMRec: a missing key is None."""

    def __missing__(self, key: str) -> None:
        return None


class _Interactions:
    """Replacement for MMRec's data loader, with the methods that its models call."""

    def __init__(self, data: TrainData) -> None:
        self.data, self.dataset = data, self

    def get_user_num(self) -> int:
        return self.data.n_users

    def get_item_num(self) -> int:
        return self.data.n_items

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Return the [U, I] training matrix, without padding."""
        history = self.data.history
        shape = self.data.n_users, self.data.n_items
        matrix = sp.coo_matrix(
            (np.ones(len(history.items)), (history.repeat_users() - 1, history.items - 1)), shape=shape
        )
        return matrix if form == "coo" else matrix.tocsr()


def set_two_modalities(split: Split) -> Split:
    """Return the split with random image features and its text features. Without text, its first modality is used."""
    text = split.features.get("text", next(iter(split.features.values())))
    image = np.random.default_rng(0).standard_normal((len(text), IMAGE_WIDTH), dtype=np.float32)
    image[0] = 0.0
    return replace(split, features={"image": image, "text": text}, cache=None)


def translate_settings(name: str, config: OwnRunConfig) -> dict[str, Any]:
    """Translate the settings of our model to the names of MMRec."""
    ours: Any = config.model_settings
    width = [ours.emb_dim] * 2
    by_model = {
        "LightGCN": lambda: {"n_layers": ours.n_layers, "reg_weight": ours.l2_weight},
        "VBPR": lambda: {"reg_weight": ours.l2_weight},
        "FREEDOM": lambda: {
            "feat_embed_dim": ours.emb_dim,
            "knn_k": ours.n_neighbors,
            "n_mm_layers": ours.n_item_layers,
            "n_ui_layers": ours.n_layers,
            "reg_weight": ours.modality_weight,
            "mm_image_weight": ours.image_share,
            "dropout": ours.edge_dropout,
            "weight_size": width,
            "lambda_coeff": 0.9,
        },
        "BM3": lambda: {
            "feat_embed_dim": ours.emb_dim,
            "n_layers": ours.n_layers,
            "reg_weight": ours.norm_weight,
            "cl_weight": ours.modality_weight,
            "dropout": ours.dropout,
        },
        "SLMRec": lambda: {
            "recdim": ours.emb_dim,
            "layer_num": ours.n_layers,
            "ssl_task": "FAC",
            "ssl_alpha": ours.ssl_weight,
            "ssl_temp": ours.ssl_temperature,
            "temp": ours.temperature,
            "mm_fusion_mode": "concat",
            "init": "xavier",
            "adj_type": "pre",
        },
        "GRCN": lambda: {"latent_embedding": ours.emb_dim, "n_layers": ours.n_routing, "reg_weight": ours.l2_weight},
        "LATTICE": lambda: {
            "feat_embed_dim": ours.emb_dim,
            "weight_size": width,
            "knn_k": ours.n_neighbors,
            "lambda_coeff": ours.fixed_share,
            "cf_model": "lightgcn",
            "n_layers": ours.n_item_layers,
            "reg_weight": ours.l2_weight,
        },
    }
    return by_model[name]()


def build_public_model(name: str, checkout: Path, data: TrainData, config: OwnRunConfig, folder: Path) -> Any:
    """Build MMRec's model on our data, with image features, text features or both.

    Args:
        name: name of the model.
        checkout: folder with a checkout of MMRec.
        data: training part.
        config: run config of our model.
        folder: folder for the features and caches of MMRec.

    Raises:
        DataError: the folder is not a checkout of MMRec.
        MissingDependency: a package that MMRec's model imports is not installed.
    """
    source = checkout / "src"
    if not (source / "models" / f"{name.lower()}.py").is_file():
        raise DataError(f"{checkout} holds no src/models/{name.lower()}.py; pass a checkout of enoche/MMRec")
    stub: Any = types.ModuleType("torch_scatter")
    stub.scatter = stub.scatter_add = None  # imported, never called
    sys.modules.setdefault("torch_scatter", stub)
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
    sp.dok_matrix._update = lambda matrix, values: matrix._dict.update(values)
    sys.path.insert(0, str(source))
    dataset = (
        "data" if "text" in data.features else "kwai"
    )  # without text, MMRec's SLMRec works only under this dataset name
    (folder / dataset).mkdir()
    for modality, file in FEATURE_FILES.items():
        if modality in data.features:
            np.save(folder / dataset / file, data.features[modality][1:])
    settings = _Config(
        USER_ID_FIELD="user",
        ITEM_ID_FIELD="item",
        NEG_PREFIX="neg_",
        device=CPU,
        end2end=False,
        is_multimodal_model=True,
        data_path=f"{folder}/",
        dataset=dataset,
        vision_feature_file=FEATURE_FILES["image"],
        text_feature_file=FEATURE_FILES["text"],
        embedding_size=config.model_settings.emb_dim,
        train_batch_size=config.train.batch_size,
        **translate_settings(name, config),
    )
    try:
        module = importlib.import_module(f"models.{name.lower()}")
    except ImportError as error:
        raise MissingDependency(f"MMRec's {name} needs {error.name}, which is not installed; pip install it") from error
    return getattr(module, name)(settings, _Interactions(data))


def time_public(name: str, checkout: Path, split: Split, config: OwnRunConfig, steps: int) -> dict[str, float]:
    """Time MMRec: seconds of the set-up, of an epoch and of an evaluation.

    The time of an epoch is computed from its first step and `steps` later ones.
    """
    torch.manual_seed(2024)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        model = build_public_model(name, checkout, split.make_train_data(), config, Path(folder))
        build = time.perf_counter() - started
        optimizer = torch.optim.Adam(
            model.parameters(), lr=config.train.learning_rate, weight_decay=config.train.weight_decay
        )
        source = PairSource(split.make_train_data(), config.train.batch_size, "interactions", CPU)
        batches = source.epoch(1)

        def time_step(batch: PairBatch) -> float:
            started = time.perf_counter()
            optimizer.zero_grad()
            columns = torch.stack([batch.user - 1, batch.positive - 1, batch.negative - 1])
            model.calculate_loss(columns).sum().backward()
            optimizer.step()
            return time.perf_counter() - started

        model.train()
        model.pre_epoch_processing()
        time_step(next(batches))  # warm-up
        started = time.perf_counter()
        model.pre_epoch_processing()
        first = time_step(next(batches)) + time.perf_counter() - started
        later = [time_step(next(batches)) for _ in range(min(steps, source.count_batches() - 2))]
        epoch = first + float(np.mean(later)) * (source.count_batches() - 1)
        return {"build": build, "epoch": epoch, "evaluation": _time_public_evaluation(name, model, split)}


def _time_public_evaluation(name: str, model: Any, split: Split) -> float:
    """Return the seconds of a full ranking, from the time of one block of users.

    MMRec computes all embeddings again for each block.
    """
    model.eval()
    history = split.train
    users = torch.arange(min(EVAL_USERS, split.n_users))
    seen = torch.from_numpy(history.repeat_users()[: history.indptr[len(users) + 1]] - 1)
    with torch.no_grad():
        if name == "GRCN":
            model.forward()
        if name == "SLMRec":
            model.all_users, model.all_items = model.compute()
        started = time.perf_counter()
        scores = model.full_sort_predict([users])
        scores[seen, torch.from_numpy(history.items[: len(seen)] - 1)] = -1e10
        scores.topk(min(TOP_K, scores.shape[1]), dim=1)
        return (time.perf_counter() - started) * split.n_users / len(users)


def time_ours(name: str, split: Split, config: OwnRunConfig) -> dict[str, float]:
    """Time our model: seconds of the set-up, of the second epoch and of an evaluation."""
    started = time.perf_counter()
    learner = config.build_learner(split.make_train_data(), 2024, CPU)
    build = time.perf_counter() - started
    learner.train_epoch(1, 1, _ignore_step)
    started = time.perf_counter()
    learner.train_epoch(2, 2, _ignore_step)
    epoch = time.perf_counter() - started
    started = time.perf_counter()
    evaluate(learner, split.make_selection_data(), config.evaluation, name)
    return {"build": build, "epoch": epoch, "evaluation": time.perf_counter() - started}


def _ignore_step(step: int, n_steps: int, losses: dict[str, float]) -> None:
    """Do nothing: timings show no progress."""


def compare(
    folder: Path, checkout: Path, names: Sequence[str], threads: int, steps: int
) -> list[tuple[str, float, float, str]]:
    """Time both sides of the models and return the lines of the table.

    Each line holds a description, our value, the value of MMRec and a note. Values are seconds, or GiB of peak memory.

    Args:
        folder: folder of the prepared dataset.
        checkout: folder with a checkout of MMRec.
        names: names of the models.
        threads: number of CPU threads.
        steps: number of timed steps of MMRec.

    Raises:
        HellmError: one side of a model failed.
    """
    lines = []
    for name in names:
        measured = {}
        for side in ("ours", "public"):
            arguments = [side, name, str(folder), str(checkout), "--threads", str(threads), "--steps", str(steps)]
            try:
                measured[side] = run_in_subprocess("benchmarks.upstream.mmrec", arguments)
            except HellmError as error:
                raise HellmError(f"{name}, {side}: {error}") from error
            print(
                f"{name}, {side}: " + ", ".join(f"{what} {value:.2f}" for what, value in measured[side].items()),
                flush=True,
            )
        ours, theirs = measured["ours"], measured["public"]
        for what, note in (
            ("build", ""),
            ("epoch", f"MMRec, its first step and {steps} others timed, scaled to all"),
            ("evaluation", "MMRec, one block of 4,096 users timed, scaled to all"),
            ("peak GiB", "of the whole process"),
        ):
            lines.append((f"{what}, {name}", ours[what], theirs[what], note))
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Time one side of one model, print the result as JSON, and return the exit code."""
    parser = argparse.ArgumentParser(prog="mmrec.py", description=__doc__)
    parser.add_argument("side", choices=("ours", "public"), help="implementation to time")
    parser.add_argument("model", choices=MODELS, help="name of the model")
    parser.add_argument("folder", type=Path, help="folder of the prepared dataset")
    parser.add_argument("checkout", type=Path, help="folder with a checkout of https://github.com/enoche/MMRec")
    parser.add_argument("--threads", type=int, required=True, help="number of CPU threads")
    parser.add_argument("--steps", type=int, required=True, help="number of timed steps of MMRec")
    return run_main(lambda: _measure_side(parser.parse_args(argv)))


def _measure_side(options: argparse.Namespace) -> int:
    """Time one side of one model and print the result as JSON."""
    runtime.keep_freed_memory()
    torch.set_num_threads(options.threads)
    split = set_two_modalities(split_dataset(load_dataset(options.folder, modalities=None)))
    config = resolve_own_run(options.model, split.dataset, REGISTRY, "paper", [])
    if options.side == "ours":
        measured = time_ours(options.model, split, config)
    else:
        measured = time_public(options.model, options.checkout, split, config, options.steps)
    print(json.dumps({**measured, "peak GiB": (runtime.measure_peak_memory(CPU)["host"] or 0) / 2**30}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
