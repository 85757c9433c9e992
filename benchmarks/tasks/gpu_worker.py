"""Measure cases in a process of its own: an error, a crash or a time limit ends one case, and the others go on."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from hellm_recbole.benchmarks.tasks.gpu_bench import Request
from hellm_recbole.benchmarks.tasks.gpu_table import FAILED, NOT_REACHED, STOPPED, Line, Table

START_S = 120  # a process loads torch, makes the data and resolves the rows before its first case
LOG = "log.txt"
COMMAND = (sys.executable, "-W", "ignore", "-m", "hellm_recbole.benchmarks.gpu", "--worker")


@dataclass(frozen=True)
class Limits:
    """Time limits of a part.

    Attributes:
        deadline: end of the part, a value of `time.monotonic`.
        row_s: most seconds of one case.
    """

    deadline: float
    row_s: float


def measure_in_process(request: Request, table: Table, limits: Limits) -> None:
    """Measure the cases of a request and add their lines to the table.

    A process measures the cases one after another. If it crashes or has to be stopped, another one measures the rest.

    Args:
        request: what to measure.
        table: table to add the lines to.
        limits: time limits.
    """
    left = list(request.cases)
    while left and time.monotonic() < limits.deadline:
        process = _Process(request.model_copy(update={"cases": left}), table.folder / LOG)
        try:
            n_done, begun, reason = _follow(process, table, limits)
        finally:
            process.stop()
        left = left[n_done:]
        if reason is None or not left:
            continue
        outcome = FAILED if reason.startswith("the process ended") else STOPPED
        if begun:
            part, row = left.pop(0)
            table.add(Line(part, row, outcome=outcome, note=reason))
        else:  # the next process would not do better
            part, row = left[0]
            table.add(Line(part, "all", outcome=outcome, note=f"before its first row: {reason}"))
            break
    for part, row in left:
        table.add(Line(part, row, outcome=NOT_REACHED, note="the time of this part was over, or its process failed"))


def _follow(process: _Process, table: Table, limits: Limits) -> tuple[int, bool, str | None]:
    """Add the lines of a process to the table until it has ended or a time limit is reached.

    Returns:
        Number of cases that have ended, whether another one has begun, and why the process stopped (None: it is done).
    """
    n_done, begun = 0, False
    limit_s: float = START_S
    started = time.monotonic()
    while True:
        end = min(started + limit_s, limits.deadline)
        try:
            message = process.messages.get(timeout=max(end - time.monotonic(), 0.0))
        except queue.Empty:
            is_over = end == limits.deadline
            reason = "the time of this part was over" if is_over else f"it took longer than {limit_s:.0f} s"
            return n_done, begun, reason
        if message is None:
            code = process.wait()
            finished = not begun and code == 0
            return n_done, begun, None if finished or (n_done and not begun) else _explain_end(process, code)
        kind, value = message
        if kind == "begin":
            begun, started, limit_s = True, time.monotonic(), limits.row_s
        elif kind == "line":
            table.add(Line(**value))
        else:
            begun, n_done, started = False, n_done + 1, time.monotonic()


def _explain_end(process: _Process, code: int) -> str:
    """Say why a process ended, with the last line of its log."""
    log = process.log.read_text(encoding="utf-8", errors="replace").strip()
    last = log.rpartition("\n")[2].strip()
    return f"the process ended with exit code {code}{f' ({last})' if last else ''}"


class _Process:
    """A process that measures cases, and the messages that it prints.

    Args:
        request: its cases.
        log: file for what it writes to stderr.
    """

    def __init__(self, request: Request, log: Path) -> None:
        self.log = log
        path = request.folder / "request.json"
        path.write_text(request.model_dump_json(), encoding="utf-8")
        self.messages: queue.Queue[list[Any] | None] = queue.Queue()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*COMMAND, str(path)],
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        """Read the messages until the process ends; what libraries print is no message."""
        with stream:
            for text in stream:
                if text.startswith('["'):
                    self.messages.put(json.loads(text))
        self.messages.put(None)

    def wait(self) -> int:
        """Wait until the process has ended, and return its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """End the process and those that it has started."""
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        self._process.kill()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait()
        self._reader.join()
