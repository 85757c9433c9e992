"""Times of our multimodal models and of MMRec's, each measured in its own process.

Each process has its own peak memory, and the changes that MMRec needs (a replacement for a missing package, no transfer
to a GPU) affect nothing else. Both sides get the same interactions, the same batch size and the same two modalities:
the text of the dataset, and random numbers of the width of CLIP's image features, because MMRec's models need both.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.values import parse_integer, parse_path
from hellm_recbole.benchmarks.upstream.mmrec import CPU, MODELS, build_public_model
from hellm_recbole.benchmarks.upstream.subprocesses import run_in_subprocess
from hellm_recbole.benchmarks.upstream.timings import ignore_step
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import HellmError
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.system import runtime
from hellm_recbole.training.sampling import PairSource
from hellm_recbole.training.trainer import evaluate
from hellm_recbole.types import PairBatch

IMAGE_WIDTH = 512  # width of the image features of CLIP ViT-B/32
EVAL_USERS = 4096  # users scored at a time by MMRec
TOP_K = 50  # length of the lists of MMRec


def set_two_modalities(split: Split) -> Split:
    """Return the split with random image features and its text features. Without text, its first modality is used."""
    text = split.features.get("text", next(iter(split.features.values())))
    image = np.random.default_rng(0).standard_normal((len(text), IMAGE_WIDTH), dtype=np.float32)
    image[0] = 0.0
    return replace(split, features={"image": image, "text": text}, cache=None)


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
    learner.train_epoch(1, 1, ignore_step)
    started = time.perf_counter()
    learner.train_epoch(2, 2, ignore_step)
    epoch = time.perf_counter() - started
    started = time.perf_counter()
    evaluate(learner, split.make_selection_data(), config.evaluation, name)
    return {"build": build, "epoch": epoch, "evaluation": time.perf_counter() - started}


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
                measured[side] = run_in_subprocess("hellm_recbole.benchmarks.upstream.mmrec_timings", arguments)
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


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/upstream/mmrec_timings.py") -> int:
    """Time one side of one model, print the result as JSON, and return the exit code."""
    return run_command(measure_side, argv, program, __doc__)


def measure_side(
    side: Annotated[Literal["ours", "public"], typer.Argument(help="implementation to time")],
    model: Annotated[str, typer.Argument(help=f"name of the model: {', '.join(MODELS)}")],
    folder: Annotated[Path, typer.Argument(parser=parse_path, help="folder of the prepared dataset")],
    checkout: Annotated[Path, typer.Argument(parser=parse_path, help="folder with a checkout of MMRec")],
    threads: Annotated[int, typer.Option(parser=parse_integer, help="number of CPU threads")],
    steps: Annotated[int, typer.Option(parser=parse_integer, help="number of timed steps of MMRec")],
) -> int:
    """Time one side of one model and print the result as JSON."""
    runtime.keep_freed_memory()
    torch.set_num_threads(threads)
    split = set_two_modalities(split_dataset(load_dataset(folder, modalities=None)))
    config = resolve_own_run(model, split.dataset, REGISTRY, "paper", [])
    measured = time_ours(model, split, config) if side == "ours" else time_public(model, checkout, split, config, steps)
    print(json.dumps({**measured, "peak GiB": (runtime.measure_peak_memory(CPU)["host"] or 0) / 2**30}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
