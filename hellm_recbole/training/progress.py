"""Progress of a run on the console, and loggers of its curves."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from hellm_recbole.errors import MissingDependency
from hellm_recbole.training.checkpoint import Progress

LINE_EVERY_S = 20.0  # least time between two lines, if there is no terminal
STEPS_EVERY_S = 60.0  # least time between two lines, or two calls of `Logger.step`, inside an epoch


class Logger(Protocol):
    """A logger of scalar curves."""

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Log the current step of a long epoch; called at most once in `STEPS_EVERY_S`."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Log the values of one epoch."""

    def close(self) -> None:
        """Write all pending values and close the logger."""


class ConsoleView:
    """A progress bar over epochs with loss terms, validation metric and remaining time.

    Without a terminal, it prints plain lines. The remaining time is the time to the last epoch, or, in a line inside an
    epoch, to the last step of this epoch. Early stopping may end the run earlier.

    Args:
        name: name of the run, for the bar and the lines.
        epochs: largest number of epochs.
        done: number of epochs that earlier processes completed.
        metric: validation metric to show.
        loggers: loggers that receive the values of each epoch.
    """

    def __init__(self, name: str, epochs: int, done: int, metric: str, loggers: Sequence[Logger]) -> None:
        self.name, self.epochs, self.metric, self.loggers = name, epochs, metric, loggers
        self._bar: Any = tqdm(total=epochs, initial=done, desc=name, unit="epoch", disable=not sys.stderr.isatty())
        self._started = self._last_shown = self._last_logged = self._epoch_started = time.monotonic()
        self._first_epoch = done
        self._valid = ""

    def step(self, epoch: int, step: int, n_steps: int, losses: Mapping[str, float]) -> None:
        """Show the step and the mean losses of the epoch so far."""
        now = time.monotonic()
        if step < n_steps and now - self._last_logged > STEPS_EVERY_S:
            self._last_logged = now
            for logger in self.loggers:
                logger.step(epoch, step, n_steps)
        if not self._bar.disable and (step == n_steps or now - self._last_shown > 0.2):
            self._last_shown = now
            self._bar.set_postfix_str(f"step {step}/{n_steps} {_format_values(losses)} {self._valid}")
        if self._bar.disable and step < n_steps and now - self._last_shown > STEPS_EVERY_S:
            self._last_shown = now
            left = (now - self._epoch_started) / step * (n_steps - step)
            self._print_line(f"{epoch}/{self.epochs} step {step}/{n_steps}", losses, f"{left:.0f} s left of the epoch")

    def epoch(self, progress: Progress) -> None:
        """Show the validation metric of an epoch, and log all its values."""
        entry = progress.curve[-1]
        if entry["valid"]:
            self._valid = (
                f"{self.metric} {entry['valid'][self.metric]:.4f} best {progress.best_value:.4f} @{progress.best_epoch}"
            )
        self._bar.update(1)
        now = self._epoch_started = self._last_logged = time.monotonic()
        if self._bar.disable and (progress.stopped or now - self._last_shown > LINE_EVERY_S):
            self._last_shown = now
            left = (now - self._started) / (progress.epoch - self._first_epoch) * (self.epochs - progress.epoch)
            ending = "done" if progress.stopped else f"at most {left:.0f} s left"
            self._print_line(f"{progress.epoch}/{self.epochs}", entry["losses"], ending)
        values = {f"loss/{name}": value for name, value in entry["losses"].items()}
        values |= {f"valid/{name}": value for name, value in (entry["valid"] or {}).items()}
        for logger in self.loggers:
            logger.log(progress.epoch, values | {"seconds/epoch": entry["seconds"]})

    def _print_line(self, position: str, losses: Mapping[str, float], ending: str) -> None:
        """Print a plain line: position in the run, losses, validation metric and remaining time."""
        content = " ".join(part for part in (position, _format_values(losses), self._valid) if part)
        print(f"{self.name}: epoch {content}, {ending}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the progress bar and the loggers."""
        self._bar.close()
        for logger in self.loggers:
            logger.close()


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
            raise MissingDependency(
                f"logger {name} needs the package {error.name}, which is not installed; install it with pip, "
                f"or run with --set loggers=[]"
            ) from error
    return loggers


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


def _format_values(values: Mapping[str, float]) -> str:
    """Format named numbers as one line, with four decimals."""
    return " ".join(f"{name} {value:.4f}" for name, value in values.items())
