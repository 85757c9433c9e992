"""What a person sees of a run, and what loggers keep of it."""

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

LINE_EVERY_S = 20.0  # without a terminal: least time between two lines
STEPS_EVERY_S = 60.0  # and before a line inside an epoch


class Logger(Protocol):
    """Keeps scalar curves."""

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Where a long epoch is, every `STEPS_EVERY_S`."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Values of one epoch."""

    def close(self) -> None:
        """Flush and end."""


class ConsoleView:
    """A bar over epochs with loss terms, validation metric and time left; plain lines where there is no terminal.

    The time left counts to the last epoch, inside an epoch to its last step; early stopping may end the run before.
    """

    def __init__(self, name: str, epochs: int, done: int, metric: str, loggers: Sequence[Logger]) -> None:
        self.name, self.epochs, self.metric, self.loggers = name, epochs, metric, loggers
        self._bar: Any = tqdm(total=epochs, initial=done, desc=name, unit="epoch", disable=not sys.stderr.isatty())
        self._started = self._said = self._told = self._epoch_started = time.monotonic()
        self._first = done
        self._valid = ""

    def step(self, epoch: int, step: int, n_steps: int, losses: Mapping[str, float]) -> None:
        """Show the step and the mean losses of the epoch so far."""
        now = time.monotonic()
        if step < n_steps and now - self._told > STEPS_EVERY_S:
            self._told = now
            for logger in self.loggers:
                logger.step(epoch, step, n_steps)
        if not self._bar.disable and (step == n_steps or now - self._said > 0.2):
            self._said = now
            self._bar.set_postfix_str(f"step {step}/{n_steps} {_listed(losses)} {self._valid}")
        if self._bar.disable and step < n_steps and now - self._said > STEPS_EVERY_S:
            self._said = now
            left = (now - self._epoch_started) / step * (n_steps - step)
            self._print(f"{epoch}/{self.epochs} step {step}/{n_steps}", losses, f"{left:.0f} s left of the epoch")

    def epoch(self, progress: Progress) -> None:
        """Show the epoch's validation metric and log all of it."""
        entry = progress.curve[-1]
        if entry["valid"]:
            self._valid = (
                f"{self.metric} {entry['valid'][self.metric]:.4f} best {progress.best_value:.4f} @{progress.best_epoch}"
            )
        self._bar.update(1)
        now = self._epoch_started = self._told = time.monotonic()
        if self._bar.disable and (progress.stopped or now - self._said > LINE_EVERY_S):
            self._said = now
            left = (now - self._started) / (progress.epoch - self._first) * (self.epochs - progress.epoch)
            ending = "done" if progress.stopped else f"at most {left:.0f} s left"
            self._print(f"{progress.epoch}/{self.epochs}", entry["losses"], ending)
        values = {f"loss/{name}": value for name, value in entry["losses"].items()}
        values |= {f"valid/{name}": value for name, value in (entry["valid"] or {}).items()}
        for logger in self.loggers:
            logger.log(progress.epoch, values | {"seconds/epoch": entry["seconds"]})

    def _print(self, where: str, losses: Mapping[str, float], ending: str) -> None:
        found = " ".join(part for part in (where, _listed(losses), self._valid) if part)
        print(f"{self.name}: epoch {found}, {ending}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar and the loggers."""
        self._bar.close()
        for logger in self.loggers:
            logger.close()


def open_loggers(names: Sequence[str], folder: Path, run: str, done: int, settings: Mapping[str, Any]) -> list[Logger]:
    """Loggers by name.

    Args:
        names: any of tensorboard, wandb, mlflow.
        folder: of the row; TensorBoard writes into `tensorboard/` in it.
        run: name of the run.
        done: epochs already logged by an earlier process.
        settings: logged once.

    Raises:
        MissingDependency: a logger's package is not installed.
    """
    makers: dict[str, Callable[[Path, str, int, Mapping[str, Any]], Logger]] = {
        "tensorboard": _TensorBoard,
        "wandb": _Wandb,
        "mlflow": _Mlflow,
    }
    loggers: list[Logger] = []
    for name in names:
        try:
            loggers.append(makers[name](folder, run, done, settings))
        except ImportError as error:
            raise MissingDependency(
                f"logger {name} needs the package {error.name}, which is not installed; pip install it, "
                f"or run with --set loggers=[]"
            ) from error
    return loggers


class _EpochsOnly:
    """A logger that does not ask where an epoch is."""

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        pass


class _TensorBoard(_EpochsOnly):
    def __init__(self, folder: Path, run: str, done: int, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        self._writer.close()


class _Wandb(_EpochsOnly):
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


class _Mlflow(_EpochsOnly):
    def __init__(self, folder: Path, run: str, done: int, settings: Mapping[str, Any]) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        self._mlflow.set_experiment("hellm-recbole")
        self._mlflow.start_run(run_name=run)
        self._mlflow.log_params(dict(settings))

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics({name.replace("@", "_at_"): value for name, value in values.items()}, step=epoch)

    def close(self) -> None:
        self._mlflow.end_run()


def _listed(values: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in values.items())
