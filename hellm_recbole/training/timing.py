"""Measurement of the time of an epoch from a few training steps."""

from __future__ import annotations

import contextlib
import time

from hellm_recbole.training.learner import Learner


class _EnoughSteps(Exception):
    """Raised to end an epoch after enough steps were timed."""


def time_epoch(learner: Learner, steps: int) -> tuple[float, int]:
    """Estimate the time of an epoch from the time of its first steps.

    The first step is a warm-up and is not counted. An epoch with too few steps is timed as a whole.

    Args:
        learner: learner to train.
        steps: number of steps to time, after the warm-up.

    Returns:
        Seconds of an epoch, and its number of steps.
    """
    ends: list[float] = []
    n_steps = 0

    def on_step(step: int, total: int, losses: dict[str, float]) -> None:
        nonlocal n_steps
        n_steps = total
        ends.append(time.perf_counter())
        if len(ends) > steps:
            raise _EnoughSteps

    started = time.perf_counter()
    with contextlib.suppress(_EnoughSteps):
        learner.train_epoch(1, 1, on_step)
    if len(ends) <= steps:
        return time.perf_counter() - started, n_steps
    return (ends[-1] - ends[0]) / (len(ends) - 1) * n_steps, n_steps
