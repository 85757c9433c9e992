"""Progress of runs that are executed side by side: what each hands on, and one view for all runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import rich.live
import rich.table
from rich.console import Console

from hellm_recbole.experiments.jobs import RunJob
from hellm_recbole.experiments.run_config import TrainedRunConfig
from hellm_recbole.system.work_bar import LINE_EVERY_S


class ProgressReporter:
    """A logger that hands the progress of one job on, with the content of the lines of a single run.

    Args:
        job: the job.
        write: function that takes the latest line.
    """

    def __init__(self, job: RunJob, write: Callable[[str], object]) -> None:
        assert isinstance(job.config, TrainedRunConfig)
        self._write, self._train = write, job.config.train
        self._validation = ""
        self._best: tuple[float, int] | None = None  # best validation metric and its epoch
        self._is_whole: bool | None = None  # whether this process has seen all epochs, so that it knows the best one
        self._write("starting")

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Write epoch and step; called only in long epochs."""
        self._write(f"{self._describe_epoch(epoch)}{self._validation}, step {step}/{n_steps}")

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write epoch, validation metric, best epoch, and the epoch at which early stopping would end the run."""
        if self._is_whole is None:
            self._is_whole = epoch == 1
        value = values.get(f"valid/{self._train.valid_metric}")
        if value is not None:
            if self._best is None or value > self._best[0]:
                self._best = value, epoch
            self._validation = f", {self._train.valid_metric} {value:.4f}"
            if self._is_whole:
                self._validation += self._describe_best(*self._best)
        self._write(f"{self._describe_epoch(epoch)}{self._validation}")

    def close(self) -> None:
        """Write that training has ended."""
        self._write("ranking")

    def _describe_epoch(self, epoch: int) -> str:
        return f"epoch {epoch} of at most {self._train.epochs}"

    def _describe_best(self, value: float, epoch: int) -> str:
        """Describe the best epoch, and when early stopping would end the run."""
        text = f", best {value:.4f} at epoch {epoch}"
        end = epoch + self._train.patience * self._train.eval_every
        return text if end >= self._train.epochs else f"{text}, stops at epoch {end} without improvement"


@contextmanager
def open_view(total: int) -> Iterator[Any]:
    """Open a view of the progress: a live table in a terminal, otherwise a `_LineView`.

    Yields:
        A function that takes the number of finished jobs, the number of failed jobs, and name -> line of each running
        job, and shows them.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _LineView(total)
        return
    with rich.live.Live(console=console, transient=True) as live:

        def show(done: int, failed: int, lines: Mapping[str, str]) -> None:
            table = rich.table.Table(title=_format_counts(total, done, failed, len(lines)), box=None)
            for name, text in lines.items():
                table.add_row(name, text)
            live.update(table)

        yield show


def _format_counts(total: int, done: int, failed: int, running: int) -> str:
    return f"{done} of {total} runs finished ({failed} failed), {running} running"


class _LineView:
    """A view for output that is not a terminal: a line for each running job when a job ends, and at intervals."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._printed_at = total, -1, time.monotonic()

    def __call__(self, done: int, failed: int, lines: Mapping[str, str]) -> None:
        if done == self._done and time.monotonic() - self._printed_at < LINE_EVERY_S:
            return
        self._done, self._printed_at = done, time.monotonic()
        details = [f"  {name}: {text}" for name, text in lines.items()]
        print("\n".join([_format_counts(self._total, done, failed, len(lines)), *details]), file=sys.stderr, flush=True)
