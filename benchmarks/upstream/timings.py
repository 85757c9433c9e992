"""What all timings against public code share: lines of the table, learners, and calls that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.training.learner import ModelLearner
from hellm_recbole.training.trainer import evaluate

Line = tuple[str, float, float, str]  # what is measured, our value, their value, note on their side


def build_learner(name: str, split: Split, **values: object) -> tuple[ModelLearner, Callable[[], object]]:
    """Build a learner of one of our models, and a function that validates it."""
    overrides = [Override(name, key, value, f"{key}={value}") for key, value in values.items()]
    config = resolve_own_run(name, split.dataset, REGISTRY, "paper", overrides)
    learner = config.build_learner(split.make_train_data(), 2024, torch.device("cpu"))
    return learner, lambda: evaluate(learner, split.make_selection_data(), config.evaluation, name)


def time_alternately(
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


def ignore_step(step: int, n_steps: int, losses: dict[str, float]) -> None:
    """Do nothing: timings show no progress."""
