"""Progress of a run on the console: a bar with two lines in a terminal, plain lines elsewhere.

The bar is drawn by rich, without its thread: it changes only between training steps, so nothing else has to be stopped
when the run is.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from hellm_recbole.system.columns import Forms, fit_parts, format_duration, shorten_name
from hellm_recbole.system.work_bar import DRAW_EVERY_S, LINE_EVERY_S, is_progress_hidden, start_live
from hellm_recbole.training.checkpoint import Progress
from hellm_recbole.training.loggers import STEPS_EVERY_S, Logger

BAR_WIDTH = (8, 40)  # least and most columns of the bar itself
NO_LIMIT = sys.maxsize  # width of a line in a file


class ConsoleView:
    """What a run prints while it is trained: epoch, validation metric, best epoch, remaining time and losses.

    Without a terminal, it prints plain lines. The remaining time of a run ends with the last epoch. In a line that is
    printed inside an epoch, it ends with the last step of this epoch. Early stopping may end the run earlier. The line
    says at which epoch this happens if no validation before it is better than the best one.

    Args:
        name: model and dataset of the run.
        epochs: largest number of epochs.
        done: number of epochs that earlier processes completed.
        metric: validation metric to show.
        loggers: loggers that receive the values of each epoch.
        position: number of this run and of all runs, such as "3/15"; empty for a run alone.
        seed: random seed of the run; None if it is not shown.
        patience: number of evaluations without a better metric that end the run; None if this is not shown.
        eval_every: number of epochs between two evaluations.
        n_sampled: number of users that validation evaluates; None if it evaluates all.
    """

    def __init__(
        self,
        name: str,
        epochs: int,
        done: int,
        metric: str,
        loggers: Sequence[Logger],
        *,
        position: str = "",
        seed: int | None = None,
        patience: int | None = None,
        eval_every: int = 1,
        n_sampled: int | None = None,
    ) -> None:
        self.name, self.epochs, self.metric, self.loggers = name, epochs, metric, loggers
        self._sample = "" if n_sampled is None else f" of {n_sampled:,} users"
        self._position, self._seed, self._patience, self._eval_every = position, seed, patience, eval_every
        self._started = self._last_shown = self._last_logged = self._epoch_started = time.monotonic()
        self._first_epoch = self._epoch = done
        self._step: tuple[int, int] | None = None  # the current step of the epoch and the number of its steps
        self._losses: Mapping[str, float] = {}
        self._value: float | None = None  # validation metric of the last evaluation
        self._progress: Progress | None = None
        self._closed = False
        if done and not is_progress_hidden():
            print(f"{self._write_run()}: resumed after epoch {done}", file=sys.stderr, flush=True)
        self._live = start_live()
        if self._live is not None:
            self._draw()

    def step(self, epoch: int, step: int, n_steps: int, losses: Mapping[str, float]) -> None:
        """Show the step and the mean losses of the epoch so far."""
        now = time.monotonic()
        if step < n_steps and now - self._last_logged > STEPS_EVERY_S:
            self._last_logged = now
            for logger in self.loggers:
                logger.step(epoch, step, n_steps)
        self._epoch, self._step, self._losses = epoch, (step, n_steps), losses
        if self._live is not None:
            if now - self._last_shown > DRAW_EVERY_S:
                self._last_shown = now
                self._draw()
        elif step < n_steps and now - self._last_shown > STEPS_EVERY_S:
            self._last_shown = now
            self._print_line()

    def epoch(self, progress: Progress) -> None:
        """Show the validation metric of an epoch, and log all its values."""
        entry = progress.curve[-1]
        self._progress, self._epoch, self._step, self._losses = progress, progress.epoch, None, entry["losses"]
        if entry["valid"]:
            self._value = entry["valid"][self.metric]
        now = self._epoch_started = self._last_logged = time.monotonic()
        if self._live is not None:
            if now - self._last_shown > DRAW_EVERY_S:
                self._last_shown = now
                self._draw()
        elif progress.stopped or now - self._last_shown > LINE_EVERY_S:
            self._last_shown = now
            self._print_line()
        values = {f"loss/{name}": value for name, value in entry["losses"].items()}
        values |= {f"valid/{name}": value for name, value in (entry["valid"] or {}).items()}
        for logger in self.loggers:
            logger.log(progress.epoch, values | {"seconds/epoch": entry["seconds"]})

    def close(self) -> None:
        """Replace the bar by one line, and close the loggers."""
        self._closed = True
        if self._live is not None:
            from rich.text import Text

            if self._step is not None and self._progress is not None:  # an unfinished epoch is not kept
                entry = self._progress.curve[-1]
                self._epoch, self._step, self._losses = self._progress.epoch, None, entry["losses"]
            self._live.update(Text(self._compose_line(self._live.console.width)))
            self._live.stop()
            self._live = None
        for logger in self.loggers:
            logger.close()

    def _print_line(self) -> None:
        """Print a plain line. If the variable `COLUMNS` is set, it limits the width of the line."""
        if is_progress_hidden():
            return
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() and int(columns) > 0 else NO_LIMIT
        print(self._compose_line(width), file=sys.stderr, flush=True)

    def _compose_line(self, width: int) -> str:
        """Compose everything in one line of at most `width` columns."""
        parts = [self._write_epoch(), self._write_step(), *self._write_validation(), self._write_left()]
        body = fit_parts([*parts, self._write_losses()], width - len(self._write_run()) - 2)
        return f"{self._write_run(width - cell_len(body) - 2)}: {body}"

    def _draw(self) -> None:
        """Draw the bar: run, bar, epoch and remaining time, and below them the validation metric and the losses."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        assert self._live is not None
        width = self._live.console.width
        right = fit_parts(
            [self._write_epoch(), self._write_left()], width - cell_len(self._write_run()) - BAR_WIDTH[0] - 2
        )
        run = self._write_run(width - cell_len(right) - BAR_WIDTH[0] - 2)
        bar_width = min(width - cell_len(run) - cell_len(right) - 2, BAR_WIDTH[1])
        first: Any = Text(f"{run} {right}")
        if bar_width >= BAR_WIDTH[0]:
            step = 0.0 if self._step is None else self._step[0] / self._step[1] - 1.0
            first = Table.grid(padding=(0, 1, 0, 0))
            first.add_row(Text(run), ProgressBar(self.epochs, self._epoch + step, width=bar_width), Text(right))
        second = fit_parts([*self._write_validation(), self._write_step(), self._write_losses()], width)
        self._live.update(Group(first, Text(second)), refresh=True)

    def _write_run(self, width: int = NO_LIMIT) -> str:
        """Write the position of the run, model and dataset, and the seed; a name that is too long is shortened."""
        before = f"{self._position} " if self._position else ""
        after = "" if self._seed is None else f", seed {self._seed}"
        if cell_len(f"{before}{self.name}{after}") > width:
            after = after.removeprefix(",")
        return f"{before}{shorten_name(self.name, width - len(before) - len(after))}{after}"

    def _write_epoch(self) -> Forms:
        short = f"{self._epoch}/{self.epochs}"
        return f"epoch {self._epoch} of at most {self.epochs}", f"epoch {short}", f"epoch {short}", short

    def _write_step(self) -> Forms:
        return ("",) if self._step is None else (f"step {self._step[0]}/{self._step[1]}",)

    def _write_validation(self) -> list[Forms]:
        """Write the last validation metric, the best one, and when early stopping would end the run."""
        progress = self._progress
        if progress is None or progress.best_epoch == 0:
            return []
        # The last value is not known after a restart, until the next validation.
        parts: list[Forms] = [] if self._value is None else [(f"{self.metric}{self._sample} {self._value:.4f}",)]
        best, epoch = f"best {progress.best_value:.4f}", progress.best_epoch
        parts.append((f"{best} at epoch {epoch}", f"{best} @{epoch}", f"{best}@{epoch}"))
        end = None if self._patience is None else find_early_end(progress, self._patience, self._eval_every)
        if end is not None and end < self.epochs and not progress.stopped and not self._closed:
            stop = f"stops at epoch {end}"
            parts.append((f"{stop} without improvement", stop, f"stop @{end}", f"stop@{end}"))
        return parts

    def _write_left(self) -> Forms:
        """Write the remaining time, or that the run is done."""
        progress, now = self._progress, time.monotonic()
        if progress is not None and progress.stopped:
            return ("done",)
        if self._closed:
            return ("",)
        if self._step is not None and (progress is None or self._live is None):
            step, n_steps = self._step
            left = format_duration((now - self._epoch_started) / step * (n_steps - step))
            return f"{left} left of the epoch", f"{left} left of epoch"
        if progress is None:
            return ("",)
        per_epoch = (self._epoch_started - self._started) / (progress.epoch - self._first_epoch)
        left = format_duration(per_epoch * (self.epochs - progress.epoch) - (now - self._epoch_started))
        return f"at most {left} left", f"at most {left}", f"at most {left}", f"<{left.replace(' ', '')}"

    def _write_losses(self) -> Forms:
        return " ".join(f"{name} {value:.4f}" for name, value in self._losses.items()), ""


def find_early_end(progress: Progress, patience: int, eval_every: int) -> int | None:
    """Find the epoch after which training stops if no later evaluation is better than the best one.

    Args:
        progress: progress after an epoch.
        patience: number of evaluations without a better metric that end the training.
        eval_every: number of epochs between two evaluations.

    Returns:
        The epoch; it may be later than the last one. None before the first evaluation.
    """
    if progress.best_epoch == 0:
        return None
    last_evaluated = progress.epoch // eval_every * eval_every
    return last_evaluated + (patience - progress.stale) * eval_every
