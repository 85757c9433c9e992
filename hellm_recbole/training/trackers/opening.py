"""The trackers by name, the packages that they need, and what is said if one is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from hellm_recbole.errors import MissingDependency
from hellm_recbole.system.packages import name_extra
from hellm_recbole.training.trackers.accelerate_tracker import OPTIONS, AccelerateTracker
from hellm_recbole.training.trackers.base import TrackedRun, Tracker
from hellm_recbole.training.trackers.mlflow_tracker import MlflowTracker
from hellm_recbole.training.trackers.tensorboard_tracker import TensorBoardTracker
from hellm_recbole.training.trackers.wandb_tracker import WandbTracker

_OWN: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def open_tracker(name: str, run: TrackedRun, first_step: int | None = None) -> Tracker:
    """Open a run in a tracker.

    Args:
        name: name of the tracker, which is also that of the module that it needs.
        run: the run.
        first_step: first step that will be logged; None if there is none.

    Raises:
        Exception: anything that the tracker's package raises, for example if its server does not answer.
    """
    if name in OPTIONS:
        return AccelerateTracker(name, run)
    return _OWN[name](run, first_step)


def find_missing_loggers(names: Sequence[str]) -> list[str]:
    """Return the trackers whose package is not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def refuse_missing_loggers(names: Sequence[str]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        MissingDependency: there is such a tracker.
    """
    for name in find_missing_loggers(names):
        raise MissingDependency(describe_missing(name))


def describe_missing(name: str) -> str:
    """Describe what a tracker lacks and what brings it."""
    return (
        f"logger {name} needs the package {name}, which is not installed; {name_installation(name)}, or run with "
        "--set loggers=[]"
    )


def name_installation(name: str) -> str:
    """Name the command that installs the package of a tracker.

    >>> name_installation("wandb"), name_installation("comet_ml")
    ("pip install 'hellm-recbole[wandb]'", 'pip install comet-ml')
    """
    return name_extra(name) if name in _OWN else f"pip install {name.replace('_', '-')}"
