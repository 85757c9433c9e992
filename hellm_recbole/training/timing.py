"""Time of an epoch, from a few of its steps."""

from __future__ import annotations

import contextlib
import time

from hellm_recbole.training.trainer import ModelLearner


class _Enough(Exception):
    """Enough steps have been timed."""


def time_epoch(row: ModelLearner, steps: int) -> tuple[float, int]:
    """Seconds of an epoch, from the time of some of its steps, and its number of steps; the first one warms up.

    An epoch with too few steps is timed as a whole.
    """
    seen: list[float] = []
    n_steps = 0

    def on_step(step: int, total: int, losses: dict[str, float]) -> None:
        nonlocal n_steps
        n_steps = total
        seen.append(time.perf_counter())
        if len(seen) > steps:
            raise _Enough

    started = time.perf_counter()
    with contextlib.suppress(_Enough):
        row.train_epoch(1, 1, on_step)
    if len(seen) <= steps:
        return time.perf_counter() - started, n_steps
    return (seen[-1] - seen[0]) / (len(seen) - 1) * n_steps, n_steps
