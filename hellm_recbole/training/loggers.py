"""Loggers of the curves of a run: TensorBoard, Weights & Biases and MLflow.

The trackers of accelerate are not used: they need its `PartialState` in every run, also of one process, which may start
a process group, check all GPUs of the machine and change the number of threads.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hellm_recbole.errors import MissingDependency
from hellm_recbole.system.packages import name_extra

_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # logger -> module that it needs
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
    """Open loggers by name.

    Args:
        names: names of the loggers: tensorboard, wandb, mlflow.
        folder: folder of the run; TensorBoard writes to `tensorboard/` in this folder.
        run: name of the run.
        done: number of epochs that an earlier process logged.
        settings: settings of the run, which are logged once.

    Raises:
        MissingDependency: the package of a logger is not installed.
    """
    classes: dict[str, Callable[[Path, str, int, Mapping[str, Any]], Logger]] = {
        "tensorboard": _TensorBoard,
        "wandb": _Wandb,
        "mlflow": _Mlflow,
    }
    loggers: list[Logger] = []
    for name in names:
        try:
            loggers.append(classes[name](folder, run, done, settings))
        except ImportError as error:
            raise MissingDependency(_describe_missing(name)) from error
    return loggers


def find_missing_loggers(names: Sequence[str]) -> list[str]:
    """Return the loggers whose package is not installed."""
    return [name for name in names if importlib.util.find_spec(_PACKAGES[name]) is None]


def refuse_missing_loggers(names: Sequence[str]) -> None:
    """Refuse loggers whose package is not installed.

    Raises:
        MissingDependency: there is such a logger.
    """
    for name in find_missing_loggers(names):
        raise MissingDependency(_describe_missing(name))


def _describe_missing(name: str) -> str:
    """Describe what a logger lacks and what brings it."""
    return (
        f"logger {name} needs the package {_PACKAGES[name]}, which is not installed; {name_extra(name)}, or run with "
        "--set loggers=[]"
    )


class _EpochLogger:
    """A logger of whole epochs, which ignores the steps inside an epoch."""

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Log nothing."""


class _TensorBoard(_EpochLogger):
    """A logger to TensorBoard files."""

    def __init__(self, folder: Path, run: str, done: int, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        self._writer.close()


class _Wandb(_EpochLogger):
    """A logger to Weights & Biases."""

    def __init__(self, folder: Path, run: str, done: int, settings: Mapping[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        identity = run.replace("/", "-").replace(" ", "-")
        self._run = wandb.init(
            project="hellm-recbole", name=run, id=identity, resume="allow", dir=str(folder), config=dict(settings)
        )

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=epoch)

    def close(self) -> None:
        self._run.finish()


class _Mlflow(_EpochLogger):
    """A logger to MLflow."""

    def __init__(self, folder: Path, run: str, done: int, settings: Mapping[str, Any]) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        self._mlflow.set_experiment("hellm-recbole")
        self._mlflow.start_run(run_name=run)
        self._mlflow.log_params(dict(settings))

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics({name.replace("@", "_at_"): value for name, value in values.items()}, step=epoch)

    def close(self) -> None:
        self._mlflow.end_run()
