"""Loggers of the curves of a run: what receives the values of each epoch, and the trackers among them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hellm_recbole.errors import MissingDependency
from hellm_recbole.training.trackers.base import TrackedRun
from hellm_recbole.training.trackers.guard import GuardedTracker
from hellm_recbole.training.trackers.opening import describe_missing

STEPS_EVERY_S = 60.0  # least time between two calls of `Logger.step` inside an epoch


class Logger(Protocol):
    """A logger of scalar curves."""

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Log the current step of a long epoch; called at most once in `STEPS_EVERY_S`."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Log the values of one epoch."""

    def close(self) -> None:
        """Write all pending values and close the logger."""


def open_loggers(names: Sequence[str], folder: Path, run: str, done: int, settings: Mapping[str, Any]) -> list[Logger]:
    """Open trackers of the curves of a run, without its tags and its outcome (for both see `experiments.run_tracking`).

    Args:
        names: names of the trackers.
        folder: folder of the run; TensorBoard writes to `tensorboard/` in this folder.
        run: name of the run.
        done: not read: a tracker continues with the first epoch that it gets.
        settings: settings of the run, which are logged once.

    Raises:
        MissingDependency: the package of a tracker is not installed.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingDependency(describe_missing(name)) from error
    tracked = TrackedRun(run, folder, settings, {})
    return [GuardedTracker(name, tracked) for name in names]
