"""Cost of a model as the data grows: `python benchmarks/scale.py --model HeLLMPre --dataset Beauty --factors 1,2,4,8`.

The dataset is enlarged by copies: factor f makes f copies of each user and item, and each interaction of a copied user
goes to a random copy of its item, so that users keep their degrees and items theirs in the mean. Every factor runs in a
process of its own, so that each has its own peak memory. Of several timings the best counts: the larger the data, the
more it leans on the memory, which whatever else the machine does slows.

Each step of a graph model propagates over the whole graph. With `--batch grows` the batch is as many times larger as
the data, so an epoch keeps its number of steps and its cost grows with the interactions; with `--batch fixed` the steps
grow too, and the cost grows with the square of that.
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
from benchmarks.upstream.apart import run_apart
from hellm_recbole.data.atomic import load_dataset
from hellm_recbole.data.prepare import prepare_if_known
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.resolve import parse_override, resolve_runs
from hellm_recbole.system import runtime
from hellm_recbole.system.console import run_main
from hellm_recbole.training.timing import time_epoch
from hellm_recbole.training.trainer import ModelLearner
from hellm_recbole.types import FloatArray, Histories, TrainData

NOISE = 0.01  # of copied features, relative to their spread: equal copies would all be each other's neighbours


def enlarge(data: TrainData, factor: int, seed: int) -> TrainData:
    """`factor` copies of users and items, interactions rewired between copies.

    A user's repeated item becomes a repeated copy of it, so the number of interactions is exactly `factor` times as
    large; the mean degree of an item copy is that of its item.
    """
    rng = np.random.default_rng(seed)
    user, item = data.history.users(), data.history.items
    copies = np.repeat(np.arange(factor), len(user))
    users = np.tile(user, factor) + copies * data.n_users
    items = np.tile(item, factor) + rng.integers(0, factor, size=len(users)) * data.n_items
    history = Histories.from_pairs(users, items, data.n_users * factor)
    features: dict[str, FloatArray] = {}
    for name, values in data.features.items():
        own = np.tile(values[1:], (factor, 1))
        own += rng.standard_normal(own.shape, dtype=np.float32) * np.float32(NOISE * values[1:].std())
        features[name] = np.concatenate([values[:1], own])
    return TrainData(data.n_users * factor, data.n_items * factor, history, features)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scale.py", description=__doc__)
    parser.add_argument("--model", default="HeLLMPre", help="one of our models (%(default)s)")
    parser.add_argument("--dataset", default="Beauty", help="what is enlarged (%(default)s)")
    parser.add_argument("--data-path", type=Path, help="folder with the source of the dataset")
    parser.add_argument("--factors", default="1,2,4,8", help="separated by commas (%(default)s)")
    parser.add_argument("--batch", choices=("grows", "fixed"), default="grows", help="with the data (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="timed steps that stand for an epoch (%(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="timings, of which the best counts (%(default)s)")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="CPU threads; all cores if not given"
    )
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="override a setting"
    )
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    return run_main(lambda: _one(options) if options.one else _all(options))


def _all(options: argparse.Namespace) -> int:
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
        found = run_apart("benchmarks.scale", arguments)
        first = first or found
        lines.append(
            [
                factor,
                f"{found['interactions']:,}",
                f"{found['batch']:,}",
                f"{found['build_s']:.1f} s",
                f"{found['step_s'] * 1000:.0f} ms",
                f"{found['epoch_s']:.1f} s",
                f"{found['epoch_s'] / first['epoch_s']:.1f}",
                f"{found['bytes'] / 2**20:,.0f} MiB",
                f"{found['bytes'] / first['bytes']:.1f}",
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


def _one(options: argparse.Namespace) -> int:
    if options.model not in REGISTRY:
        raise ModelError(f"{options.model} is none of our models: {', '.join(REGISTRY)}")
    runtime.keep_freed_memory()
    torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    root = Path("dataset").resolve()
    folder = prepare_if_known(options.dataset, data_path=options.data_path, dataset_root=root).folder
    data = split_dataset(load_dataset(folder, modalities=None)).train_data()
    large = enlarge(data, options.one, seed=1)
    overrides = [parse_override(text, "--set ") for text in options.settings]
    (config,) = resolve_runs([options.model], options.dataset, REGISTRY, "paper", overrides)
    assert config.spec is not None
    growth = options.one if options.batch == "grows" else 1
    train = replace(config.train, batch_size=config.train.batch_size * growth)
    started = time.perf_counter()
    row = ModelLearner(config.spec, config.model_settings, large, train, config.pairs, 2024, device)
    build = time.perf_counter() - started
    epoch, n_steps = min(time_epoch(row, options.steps) for _ in range(options.repeat))
    found = {
        "interactions": len(large.history.items),
        "batch": train.batch_size,
        "build_s": build,
        "step_s": epoch / n_steps,
        "epoch_s": epoch,
        "bytes": runtime.measure_peak_memory(device)["host"],
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
