"""Progress of long work on data, such as downloads and encoding: a bar in a terminal or a notebook, else some lines.

The bar is drawn by rich, without its thread. `training/progress.py` shows the progress of a run.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from hellm_recbole.system.columns import Forms, fit_parts, format_duration
from hellm_recbole.system.notebook import NotebookLive, is_notebook

LINE_EVERY_S = 20.0  # least time between two lines, if there is no terminal
DRAW_EVERY_S = 0.2  # least time between two states of the bar
BAR_COLUMNS = 24
BYTES = "B"  # unit of work that is shown in MB


_hidden = False  # whether this process shows no progress


def hide_progress() -> None:
    """Show no progress in this process from now on: the process that has started it shows one view of all."""
    global _hidden
    _hidden = True


def is_progress_hidden() -> bool:
    """Return whether this process shows no progress."""
    return _hidden


def start_live() -> Any:
    """Start rich's live display on stderr, or in a notebook's cell; None if lines cannot be redrawn."""
    if is_notebook():
        return NotebookLive()
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    # stdout may be a file: what is printed there must not go to the terminal.
    live = Live(console=console, auto_refresh=False, redirect_stdout=False)
    live.start()
    console.show_cursor(True)  # if the process is killed, the cursor would stay hidden
    return live


class WorkBar:
    """What is printed while some work is done: amount, speed and remaining time. It is a context manager.

    Args:
        description: what is done, or the name of the file.
        total: amount of the whole work; None if it is not known.
        unit: plural of what is counted, such as texts, or `BYTES`.
        completed: amount that was done before.
        shown: whether anything is printed.
    """

    def __init__(
        self, description: str, total: int | None, unit: str, *, completed: int = 0, shown: bool = True
    ) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._first = self._completed = completed
        self._started = self._last_shown = time.monotonic()
        self._shown = shown and not _hidden
        self._live: Any = None

    def __enter__(self) -> WorkBar:
        if self._shown:
            self._live = start_live()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._draw()
            self._live.stop()
            self._live = None

    @property
    def completed(self) -> int:
        """Amount that is done."""
        return self._completed

    def update(self, amount: int = 1) -> None:
        """Add an amount of work that was done."""
        self._completed += amount
        now = time.monotonic()
        if not self._shown or now - self._last_shown < (LINE_EVERY_S if self._live is None else DRAW_EVERY_S):
            return
        self._last_shown = now
        if self._live is not None:
            self._draw()
        else:
            print(f"{self._description}: {fit_parts(self._list_parts(), sys.maxsize)}", file=sys.stderr, flush=True)

    def _draw(self) -> None:
        """Draw the bar in one line."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        width = self._live.console.width
        text = fit_parts(self._list_parts(), width - len(self._description) - 1)
        line: Any = Text(f"{self._description} {text}")
        bar_columns = min(width - len(self._description) - len(text) - 2, BAR_COLUMNS)
        if self._total and bar_columns > 0:
            line = Table.grid(padding=(0, 1, 0, 0))
            bar = ProgressBar(self._total, min(self._completed, self._total), width=bar_columns)
            line.add_row(Text(self._description), bar, Text(text))
        self._live.update(line, refresh=True)

    def _list_parts(self) -> list[Forms]:
        """List the parts of the line: amount, speed and remaining time."""
        seconds = time.monotonic() - self._started
        done = self._format_amount(self._completed)
        unit = "MB" if self._unit == BYTES else self._unit
        of = "" if self._total is None else f" of {self._format_amount(self._total)}"
        parts: list[Forms] = [(f"{done}{of} {unit}", f"{done}{of}", done)]
        if seconds > 0 and self._completed > self._first:
            per_s = (self._completed - self._first) / seconds
            parts.append((f"{self._format_amount(per_s)} {unit}/s", ""))
            if self._total is not None and self._completed < self._total:
                parts.append((f"{format_duration((self._total - self._completed) / per_s)} left", ""))
        return parts

    def _format_amount(self, amount: float) -> str:
        """Format an amount: bytes as MB with one digit, others as whole numbers."""
        return f"{amount / 1e6:,.1f}" if self._unit == BYTES else f"{amount:,.0f}"
