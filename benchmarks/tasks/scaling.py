"""Measure the time and the memory of a model on enlarged data."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import torch
from tabulate import tabulate

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.options.scale import ScaleOptions
from hellm_recbole.benchmarks.options.values import check_threads
from hellm_recbole.benchmarks.tasks.prepared_data import load_data
from hellm_recbole.benchmarks.tasks.ranking_times import time_ranking
from hellm_recbole.benchmarks.upstream.subprocesses import run_in_subprocess
from hellm_recbole.config.layers import AUTO, AUTOMATIC
from hellm_recbole.config.request import parse_override
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.system import runtime
from hellm_recbole.training.timing import time_epoch
from hellm_recbole.types import FloatArray, Histories, TrainData

RANKED_USERS = 2000
NOISE = 0.01  # standard deviation of the noise on copied features, relative to theirs: equal copies would be neighbours
HEADERS = (
    "factor",
    "interactions",
    "batch",
    "build",
    "step",
    "epoch",
    "epoch / first",
    "ranking, 1,000 users",
    "ranking / product",
    "peak memory",
    "memory / first",
)


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


def measure_all(options: ScaleOptions) -> None:
    """Measure each factor in its own process and print the table.

    Raises:
        SettingsError: an option is invalid.
        HellmError: a measurement failed.
    """
    if options.repeat < 1:
        raise SettingsError(f"--repeat {options.repeat} must be at least 1")
    parts = options.factors.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SettingsError(
            f"--factors {options.factors!r} must be positive integers separated by commas, such as 1,2,4"
        )
    threads = check_threads(options.threads) or torch.get_num_threads()
    lines: list[list[object]] = []
    first: dict[str, float] = {}
    for factor in map(int, parts):
        arguments = ["--models", options.model, "--dataset", options.dataset, "--steps", str(options.steps)]
        arguments += ["--batch", options.batch, "--repeat", str(options.repeat)]
        arguments += ["--threads", str(threads), "--one", str(factor)]
        arguments += [part for value in options.settings or [] for part in ("--set", value)]
        arguments += [] if options.data_path is None else ["--data-path", str(options.data_path)]
        arguments += ["--no-download"] if options.no_download else []
        measured = run_in_subprocess("hellm_recbole.benchmarks.scale", arguments)
        first = first or measured
        lines.append(_format_line(factor, measured, first))
    print(f"{options.model} on {options.dataset} enlarged, {threads} threads")
    print(tabulate(lines, HEADERS, tablefmt="github", disable_numparse=True))


def _format_line(factor: int, measured: dict[str, float], first: dict[str, float]) -> list[object]:
    """Format the measurement of a factor as a line of the table, relative to the measurement of the first factor."""
    return [
        factor,
        f"{measured['interactions']:,}",
        f"{measured['batch']:,}",
        f"{measured['build_s']:.1f} s",
        f"{measured['step_s'] * 1000:.0f} ms",
        f"{measured['epoch_s']:.1f} s",
        f"{measured['epoch_s'] / first['epoch_s']:.1f}",
        f"{measured['ranking_s'] * 1000:.0f} ms",
        f"{measured['ranking_s'] / measured['product_s']:.1f}" if measured["product_s"] else "\u2013",
        f"{measured['bytes'] / 2**20:,.0f} MiB",
        f"{measured['bytes'] / first['bytes']:.1f}",
    ]


def measure_factor(options: ScaleOptions, factor: int) -> None:
    """Measure one factor in this process and print the result as JSON.

    Raises:
        ModelError: the model is not one of this project, or trains nothing.
        HellmError: the data cannot be read, or a setting is wrong.
    """
    registry = load_registry()
    if options.model not in registry:
        raise ModelError(f"{options.model} is not a model of this project; the models are {', '.join(registry)}")
    if registry[options.model].is_fitted:
        raise ModelError(f"{options.model} trains nothing, so it has no time of an epoch; name a model that is trained")
    runtime.keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    data = load_data(options.dataset, options.data_path, may_download=not options.no_download)[1].make_train_data()
    overrides = [parse_override(text, "--set ") for text in options.settings or []]
    resolver = Resolver(
        options.dataset, load_registry(), "paper", overrides, interactions=len(data.history.items) * factor
    )
    config = resolver.resolve(options.model)
    assert isinstance(config, OwnRunConfig)
    resolver.refuse_unknown_overrides([config])
    large = enlarge(config.restrict_data(data), factor, seed=1)
    automatic = any(one.key == AUTOMATIC and one.value == AUTO for one in overrides)
    growth = factor if options.batch == "grows" and not automatic else 1
    train = config.train.model_copy(update={"batch_size": config.train.batch_size * growth})
    config = replace(config, train=train)
    started = time.perf_counter()
    learner = config.build_learner(large, 2024, device)
    build = time.perf_counter() - started
    epoch, n_steps = min(time_epoch(learner, options.steps) for _ in range(options.repeat))
    peak = runtime.measure_peak_memory(device)["host"]
    block = config.evaluation.eval_block_users
    timings = [time_ranking(learner, large.history, RANKED_USERS, block) for _ in range(options.repeat)]
    per_1000 = 1000 / min(RANKED_USERS, large.n_users)
    product = min(one[1] or 0.0 for one in timings)
    measured = {
        "interactions": len(large.history.items),
        "batch": train.batch_size,
        "build_s": build,
        "step_s": epoch / n_steps,
        "epoch_s": epoch,
        "ranking_s": min(one[0] for one in timings) * per_1000,
        "product_s": product * per_1000,
        "bytes": peak,
    }
    print(json.dumps(measured))
