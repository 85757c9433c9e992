"""Time this project and others on the same data and machine: `python benchmarks/speed.py --dataset Beauty`.

Each figure is the best of several repetitions. The two sides run alternately (ours, RecBole's, ours, ...) in one
process, with the same threads and the same allocator settings. Quote the ratios, because absolute times depend on the
machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hellm_recbole.system.openmp  # noqa: F401

import numpy as np
import torch
from tabulate import tabulate

from baselines.registry import REGISTRY
from benchmarks.upstream import mmrec
from benchmarks.upstream.released import ReleasedHeLLMPre
from benchmarks.upstream.released_llm import ReleasedLLM
from hellm_recbole.bridge.reference import RecBoleReference
from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.prepare import prepare_if_known
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.jobs import check_language_model
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.models.hellm_pre import DTYPES
from hellm_recbole.system import runtime
from hellm_recbole.system.console import run_main
from hellm_recbole.training.learner import ModelLearner
from hellm_recbole.training.timing import time_epoch
from hellm_recbole.training.trainer import evaluate

PARTS = ("evaluation", "lightgcn", "sasrec", "hellmpre", "multimodal", "llm")
DEFAULT_PARTS = PARTS[:3]  # the others need a checkout of published code, or a language model
DEFAULT_EVAL_BATCH = 4096  # default of RecBole
USERS_AT_ONCE = (64, 256, 1024)  # numbers of users that are tried to find RecBole's best eval_batch_size
FEW_STEPS = (20, 1)  # timed steps of our HeLLMPre, scaled to an epoch: with the default contrast, with all nodes
PRETRAINED, POOLED_WIDTH = ("HeLLMPre", "SASRec"), 64
SCORED_BLOCKS, SCORED_USERS = 8, 40  # scored blocks of users on our side, single users on the other side
LAYERS = 2  # RecBole's default depth; both sides use it


def main(argv: Sequence[str] | None = None) -> int:
    """Print the times and the ratios, and return the exit code."""
    parser = argparse.ArgumentParser(prog="speed.py", description=__doc__)
    parser.add_argument("--dataset", default="Beauty", help="dataset with a leave-one-out split (default: %(default)s)")
    parser.add_argument("--data-path", type=Path, help="folder with the source files of the dataset")
    parser.add_argument(
        "--parts",
        default=",".join(DEFAULT_PARTS),
        help=f"parts to time, separated by commas: {', '.join(PARTS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--repeat", type=int, default=3, help="number of repetitions; the best is reported (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=8,
        help="number of timed steps of RecBole's SASRec, of MMRec's models and of the part llm, scaled to an epoch "
        "(default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, help="number of CPU threads (default: all cores)")
    parser.add_argument(
        "--released", type=Path, help="for the part hellmpre: folder with a checkout of https://github.com/Xu107/MMHCL"
    )
    parser.add_argument(
        "--contrast-dtype",
        choices=tuple(DTYPES),
        default="float32",
        help="for the part hellmpre: data type of our products in the contrast of all nodes (default: %(default)s)",
    )
    parser.add_argument(
        "--mmrec", type=Path, help="for the part multimodal: folder with a checkout of https://github.com/enoche/MMRec"
    )
    parser.add_argument(
        "--llm",
        default="auto",
        help="for the part llm: language model, a Hugging Face id, a folder or a GGUF file (default: %(default)s)",
    )
    parser.add_argument(
        "--llm-layers",
        type=int,
        metavar="N",
        help="for the part llm: number of first layers of the language model to keep (default: all)",
    )
    parser.add_argument(
        "--llm-dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="for the part llm: data type of the language model, on both sides (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    return run_main(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> int:
    """Time the parts and print the table.

    Raises:
        SettingsError: a part is unknown, or a checkout that it needs is not given.
    """
    parts = options.parts.split(",")
    for part in parts:
        if part not in PARTS:
            raise SettingsError(f"--parts {part!r} is unknown; it can be {', '.join(PARTS)}")
    keeps_memory = runtime.keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    root = Path("dataset").resolve()
    folder = prepare_if_known(options.dataset, data_path=options.data_path, dataset_root=root).folder
    split = split_dataset(load_dataset(folder, modalities=None if "hellmpre" in parts else []))
    if "hellmpre" in parts and options.released is None:
        raise SettingsError("--parts hellmpre needs --released, a checkout of https://github.com/Xu107/MMHCL")
    if "multimodal" in parts and options.mmrec is None:
        raise SettingsError("--parts multimodal needs --mmrec, a checkout of https://github.com/enoche/MMRec")
    if split.kind != "leave-one-out":
        raise SettingsError(
            f"{options.dataset} has its own split, and RecBole can only use leave-one-out; choose another dataset"
        )
    backbone = {name: getattr(options, name) for name in ("llm", "llm_layers", "llm_dtype")}
    if "llm" in parts:  # a broken language model is refused before anything is timed
        check_language_model(LanguageModelCheck(), _resolve_llm_config(split, backbone), split)
    sizes = f"{split.n_users:,} users, {split.n_items:,} items, {len(split.train.items):,} training interactions"
    memory = "kept" if keeps_memory else "returned to the system"
    print(f"{options.dataset}: {sizes}")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, freed memory is {memory}")
    rows: list[tuple[str, float, float, str]] = []
    if {"evaluation", "lightgcn"} & set(parts):
        rows += _time_lightgcn(split, root, parts, options.repeat)
    if "sasrec" in parts:
        rows += _time_sasrec(split, root, options.repeat, options.steps)
    if "hellmpre" in parts:
        rows += _time_hellm_pre(split, options.released, options.repeat, options.contrast_dtype)
    if "multimodal" in parts:
        threads = torch.get_num_threads()
        rows += mmrec.compare(folder, options.mmrec, mmrec.MODELS, threads, options.steps)
    if "llm" in parts:
        rows += _time_llm(split, backbone, options.steps)
    print(
        tabulate(
            [(what, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.1f}", note) for what, ours, theirs, note in rows],
            headers=["seconds, or the unit given", "ours", "theirs", "ratio", "their side"],
            colalign=("left", "right", "right", "right", "left"),
            disable_numparse=True,
        )
    )
    return 0


def _build_learner(name: str, split: Split, **values: object) -> tuple[ModelLearner, Callable[[], object]]:
    """Build a learner of one of our models, and a function that validates it."""
    overrides = [Override(name, key, value, f"{key}={value}") for key, value in values.items()]
    config = resolve_own_run(name, split.dataset, REGISTRY, "paper", overrides)
    learner = config.build_learner(split.make_train_data(), 2024, torch.device("cpu"))
    return learner, lambda: evaluate(learner, split.make_selection_data(), config.evaluation, name)


def _time_lightgcn(split: Split, root: Path, parts: Sequence[str], repeat: int) -> list[tuple[str, float, float, str]]:
    """Time full ranking and an epoch of LightGCN against RecBole."""
    learner, validate = _build_learner("LightGCN", split, n_layers=LAYERS)
    reference = RecBoleReference(
        "LightGCN", split.dataset, root, {"n_layers": LAYERS, "embedding_size": 64, "train_batch_size": 2048}
    )
    rows = []
    if "evaluation" in parts:
        sizes = {users: users * reference.cells_per_user for users in USERS_AT_ONCE}
        best = min(sizes, key=lambda users: reference.evaluation_seconds(sizes[users])[0])
        ours, theirs = _time_alternately(validate, lambda: reference.evaluation_seconds(sizes[best]), repeat)
        _, default = _time_alternately(lambda: None, lambda: reference.evaluation_seconds(DEFAULT_EVAL_BATCH), 1)
        rows.append(("full ranking, LightGCN", ours, theirs, f"best eval_batch_size: {best} users at once"))
        rows.append(
            (
                "full ranking, LightGCN",
                ours,
                default,
                f"default eval_batch_size: {reference.users_at_once(DEFAULT_EVAL_BATCH)} user at once",
            )
        )
    if "lightgcn" in parts:
        ours, theirs = _time_alternately(
            lambda: learner.train_epoch(1, 1, _ignore_step), lambda: reference.epoch_seconds(reference.n_steps), repeat
        )
        rows.append((f"epoch, LightGCN, {LAYERS} layers, batch 2048", ours, theirs, f"{reference.n_steps} steps"))
    return rows


def _time_sasrec(split: Split, root: Path, repeat: int, steps: int) -> list[tuple[str, float, float, str]]:
    """Time an epoch of SASRec against RecBole."""
    learner, _ = _build_learner("SASRec", split)
    reference = RecBoleReference(
        "SASRec",
        split.dataset,
        root,
        {
            "hidden_size": 64,
            "n_layers": 2,
            "n_heads": 1,
            "train_neg_sample_args": None,
            "train_batch_size": 2048,
            "MAX_ITEM_LIST_LENGTH": 50,
        },
    )
    ours, theirs = _time_alternately(
        lambda: learner.train_epoch(1, 1, _ignore_step),
        lambda: reference.epoch_seconds(steps)[0],
        repeat,
        returns_seconds=(False, True),
    )
    return [("epoch, SASRec, length 50", ours, theirs, f"{steps} of {reference.n_steps} steps timed, scaled to all")]


def _time_hellm_pre(split: Split, checkout: Path, repeat: int, dtype: str) -> list[tuple[str, float, float, str]]:
    """Time an epoch of HeLLMPre, with both forms of the contrast, against the published code. A few steps are timed."""
    started = time.perf_counter()
    default, _ = _build_learner("HeLLMPre", replace(split, cache=None))
    print(f"HeLLMPre: graphs and model built in {time.perf_counter() - started:.1f} s")
    rows = []
    exact, _ = _build_learner("HeLLMPre", split, contrast_nodes="all", contrast_dtype=dtype)
    config = resolve_own_run("HeLLMPre", split.dataset, REGISTRY, "paper", [])
    theirs = ReleasedHeLLMPre(checkout, split.make_train_data(), config.model_settings, config.train.batch_size)
    for what, ours, steps in (
        ("default contrast", default, FEW_STEPS[0]),
        (f"all nodes, {dtype}", exact, FEW_STEPS[1]),
    ):
        best = _time_alternately(
            partial(_time_epoch_s, ours, steps), lambda: theirs.time_epoch_s(1), repeat, returns_seconds=(True, True)
        )
        rows.append((f"epoch, HeLLMPre, {what}", *best, "MMHCL, 1 step timed, scaled to all"))
    return rows


def _time_llm(split: Split, backbone: Mapping[str, Any], steps: int) -> list[tuple[str, float, float, str]]:
    """Time HeLLM, training on 1,000 examples and scoring of 1,000 users, against the method of the released code."""
    rng = np.random.default_rng(0)  # the values of the embeddings do not change the time
    tables = {name: rng.normal(size=(split.n_items + 1, POOLED_WIDTH)).astype(np.float32) for name in PRETRAINED}
    data = replace(split.make_train_data(), pretrained=tables)
    wide = Override(None, "prefix_hidden", POOLED_WIDTH**2, "width of the released code")
    rows = []
    theirs: ReleasedLLM | None = None
    released_sample_s = 0.0
    for what, overrides in (("", ()), (", prefix networks as wide as theirs", (wide,))):
        config = _resolve_llm_config(split, backbone, overrides)
        learner = config.build_learner(data, 2024, torch.device("cpu"))
        if theirs is None:
            theirs = ReleasedLLM(config.model_settings, data)
            released_sample_s = 1 / theirs.measure_samples_per_second(steps)
        n_targets = int(
            (np.minimum(split.train.count_items(), config.model_settings.max_history + 1) - 1).clip(min=0).sum()
        )
        sample_s = time_epoch(learner, steps)[0] / n_targets
        name = f"HeLLM@{config.backbone}"
        note = "one sample for each prefix of a history, batches of 7"
        rows.append((f"training, {name}, 1,000 examples{what}", 1000 * sample_s, 1000 * released_sample_s, note))
        if what:
            continue
        users = np.flatnonzero(split.train.count_items())[: SCORED_BLOCKS * config.model_settings.score_rows]
        learner.prepare()
        with torch.no_grad():
            started = time.perf_counter()
            for block in np.array_split(users, SCORED_BLOCKS):
                learner.compute_scores(block, split.train)
            user_s = (time.perf_counter() - started) / len(users)
        released_user_s = 1 / theirs.measure_users_per_second(SCORED_USERS)
        rows.append((f"scoring, {name}, 1,000 users", 1000 * user_s, 1000 * released_user_s, "one user at a time"))
    return rows


def _resolve_llm_config(split: Split, backbone: Mapping[str, Any], overrides: Sequence[Override] = ()) -> OwnRunConfig:
    """Resolve the run config of HeLLM with the language model of the command line."""
    given = [Override(None, name, value, f"--{name.replace('_', '-')}") for name, value in backbone.items()]
    return resolve_own_run("HeLLM", split.dataset, REGISTRY, "paper", [*given, *overrides])


def _time_epoch_s(learner: ModelLearner, steps: int) -> float:
    """Return the seconds of an epoch, from the time of a few steps."""
    return time_epoch(learner, steps)[0]


def _time_alternately(
    first: Callable[[], object],
    second: Callable[[], object],
    repeat: int,
    *,
    returns_seconds: tuple[bool, bool] = (False, False),
) -> tuple[float, float]:
    """Call two functions alternately and return the best seconds of each.

    Args:
        first: first function.
        second: second function.
        repeat: number of calls of each.
        returns_seconds: for each function, whether it measures its own seconds and returns them.
    """
    best = [float("inf"), float("inf")]
    for _ in range(repeat):
        for index, call in enumerate((first, second)):
            started = time.perf_counter()
            returned = call()
            seconds = time.perf_counter() - started
            best[index] = min(best[index], float(returned) if returns_seconds[index] else seconds)  # type: ignore[arg-type]
    return best[0], best[1]


def _ignore_step(step: int, n_steps: int, losses: dict[str, float]) -> None:
    """Do nothing: timings show no progress."""


if __name__ == "__main__":
    sys.exit(main())
