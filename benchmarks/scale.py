"""Measure time and memory as the data grows: `python benchmarks/scale.py --model HeLLMPre --dataset Beauty`.

The dataset is enlarged with copies. Factor f makes f copies of each user and item, and each interaction of a copied
user is connected to a random copy of its item. Users keep their degrees, and items keep theirs on average. Each factor
is measured in its own process, so that it has its own peak memory. The best of several timings is reported, because
other programs on the machine slow down memory access, and larger data depend more on it.

Each step of a graph model propagates over the whole graph. With `--batch grows` the batch size grows by the same factor
as the data: an epoch keeps its number of steps, and its cost grows linearly with the number of interactions. With
`--batch fixed` the number of steps also grows, and the cost grows quadratically.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hellm_recbole.system.openmp  # noqa: F401

import numpy as np
import torch
from tabulate import tabulate

from baselines.registry import REGISTRY
from benchmarks.upstream.subprocesses import run_in_subprocess
from hellm_recbole.config.request import parse_override
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.prepare import prepare_if_known
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.system import runtime
from hellm_recbole.system.console import run_main
from hellm_recbole.training.timing import time_epoch
from hellm_recbole.types import FloatArray, Histories, TrainData

NOISE = 0.01  # standard deviation of the noise on copied features, relative to theirs: equal copies would be neighbours


def enlarge(data: TrainData, factor: int, seed: int) -> TrainData:
    """Make `factor` copies of users and items, and rewire the interactions between the copies.

    Each interaction is copied `factor` times, so the number of interactions is exactly `factor` times as large. The
    mean degree of the copies of an item is the degree of the item.

    Args:
        data: training part.
        factor: number of copies.
        seed: random seed of the rewiring and of the noise on the features.
    """
    rng = np.random.default_rng(seed)
    user, item = data.history.repeat_users(), data.history.items
    copies = np.repeat(np.arange(factor), len(user))
    users = np.tile(user, factor) + copies * data.n_users
    items = np.tile(item, factor) + rng.integers(0, factor, size=len(users)) * data.n_items
    history = Histories.from_pairs(users, items, data.n_users * factor)
    features: dict[str, FloatArray] = {}
    for name, values in data.features.items():
        copied = np.tile(values[1:], (factor, 1))
        copied += rng.standard_normal(copied.shape, dtype=np.float32) * np.float32(NOISE * values[1:].std())
        features[name] = np.concatenate([values[:1], copied])
    return TrainData(data.n_users * factor, data.n_items * factor, history, features)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="scale.py", description=__doc__)
    parser.add_argument("--model", default="HeLLMPre", help="model of this project (default: %(default)s)")
    parser.add_argument("--dataset", default="Beauty", help="dataset to enlarge (default: %(default)s)")
    parser.add_argument("--data-path", type=Path, help="folder with the source files of the dataset")
    parser.add_argument(
        "--factors", default="1,2,4,8", help="enlargement factors, separated by commas (default: %(default)s)"
    )
    parser.add_argument(
        "--batch",
        choices=("grows", "fixed"),
        default="grows",
        help="whether the batch size grows with the data (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=int, default=20, help="number of timed steps, scaled to an epoch (default: %(default)s)"
    )
    parser.add_argument(
        "--repeat", type=int, default=5, help="number of timings; the best is reported (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="number of CPU threads (default: all cores)"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="value of a setting; the option can be repeated",
    )
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    return run_main(lambda: _measure_factor(options) if options.one else _measure_all(options))


def _measure_all(options: argparse.Namespace) -> int:
    """Measure each factor in its own process and print the table."""
    if options.repeat < 1:
        raise SettingsError(f"--repeat {options.repeat} must be at least 1")
    parts = options.factors.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SettingsError(
            f"--factors {options.factors!r} must be positive integers separated by commas, such as 1,2,4"
        )
    lines: list[list[object]] = []
    first: dict[str, float] = {}
    for factor in map(int, parts):
        arguments = ["--model", options.model, "--dataset", options.dataset, "--steps", str(options.steps)]
        arguments += ["--batch", options.batch, "--repeat", str(options.repeat)]
        arguments += ["--threads", str(options.threads), "--one", str(factor)]
        arguments += [part for value in options.settings for part in ("--set", value)]
        arguments += [] if options.data_path is None else ["--data-path", str(options.data_path)]
        measured = run_in_subprocess("benchmarks.scale", arguments)
        first = first or measured
        lines.append(
            [
                factor,
                f"{measured['interactions']:,}",
                f"{measured['batch']:,}",
                f"{measured['build_s']:.1f} s",
                f"{measured['step_s'] * 1000:.0f} ms",
                f"{measured['epoch_s']:.1f} s",
                f"{measured['epoch_s'] / first['epoch_s']:.1f}",
                f"{measured['bytes'] / 2**20:,.0f} MiB",
                f"{measured['bytes'] / first['bytes']:.1f}",
            ]
        )
    headers = [
        "factor",
        "interactions",
        "batch",
        "build",
        "step",
        "epoch",
        "epoch / first",
        "peak memory",
        "memory / first",
    ]
    print(f"{options.model} on {options.dataset} enlarged, {options.threads} threads")
    print(tabulate(lines, headers, tablefmt="github", disable_numparse=True))
    return 0


def _measure_factor(options: argparse.Namespace) -> int:
    """Measure one factor in this process and print the result as JSON."""
    if options.model not in REGISTRY:
        raise ModelError(f"{options.model} is not a model of this project; the models are {', '.join(REGISTRY)}")
    runtime.keep_freed_memory()
    torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    root = Path("dataset").resolve()
    folder = prepare_if_known(options.dataset, data_path=options.data_path, dataset_root=root).folder
    data = split_dataset(load_dataset(folder, modalities=None)).make_train_data()
    large = enlarge(data, options.one, seed=1)
    overrides = [parse_override(text, "--set ") for text in options.settings]
    config = resolve_own_run(options.model, options.dataset, REGISTRY, "paper", overrides)
    growth = options.one if options.batch == "grows" else 1
    train = config.train.model_copy(update={"batch_size": config.train.batch_size * growth})
    config = replace(config, train=train)
    started = time.perf_counter()
    learner = config.build_learner(large, 2024, device)
    build = time.perf_counter() - started
    epoch, n_steps = min(time_epoch(learner, options.steps) for _ in range(options.repeat))
    measured = {
        "interactions": len(large.history.items),
        "batch": config.train.batch_size,
        "build_s": build,
        "step_s": epoch / n_steps,
        "epoch_s": epoch,
        "bytes": runtime.measure_peak_memory(device)["host"],
    }
    print(json.dumps(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
