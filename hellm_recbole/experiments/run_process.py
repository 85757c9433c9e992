"""A process that executes one run, on the same machine and beside others.

The processes are those of the standard library. A local Ray does the same, but it first starts several processes of its
own, which need seconds and some hundred MB; searches and clusters use it. On Linux the processes are forked from a
server that has imported this package and done nothing else, so that a run starts in a fraction of a second. Elsewhere
each process imports it itself.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.mapped_arrays import send_paths_of_mapped_arrays
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, take_last_line
from hellm_recbole.experiments.job_progress import ProgressReporter
from hellm_recbole.experiments.jobs import RunJob, run_job
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.run_config import TrainedRunConfig
from hellm_recbole.identity.code import adopt_known_code, list_known_code
from hellm_recbole.system import runtime
from hellm_recbole.system.signals import list_stop_signals, redirect_outside_imports
from hellm_recbole.system.work_bar import hide_progress
from hellm_recbole.training.loggers import Logger
from hellm_recbole.training.trackers.guard import report_once

# Modules that the server imports: what every run needs. The last one torch imports with its first optimizer.
PRELOADED = ("hellm_recbole.experiments.run_process", "hellm_recbole.baselines.registry", "torch._dynamo")
_STOPPED = 130  # exit code of a process that a signal has stopped

Data = tuple[Dataset, Split]


class RunProcess:
    """A run in a process of its own.

    Args:
        job: the job, with its device.
        data: its dataset and split.
        threads: number of CPU threads.
        predicted_bytes: memory that it is expected to need.
    """

    def __init__(self, job: RunJob, data: Data, threads: int, predicted_bytes: int) -> None:
        self.job, self.predicted_bytes = job, predicted_bytes
        self.line = "starting"
        self.outcome: tuple[str | None] | None = None  # error of the run, or None, once it has ended by itself
        context = _get_context()
        self._connection, theirs = context.Pipe(duplex=False)
        known = {"threads": threads, "code": list_known_code(), "environment": dict(os.environ)}
        self.process = context.Process(target=execute_in_process, args=(job, data, known, theirs), name=job.name)
        send_paths_of_mapped_arrays()
        self.process.start()
        theirs.close()

    def list_waitable(self) -> list[Any]:
        """List what `multiprocessing.connection.wait` waits for."""
        return [self.process.sentinel, *([] if self._connection.closed else [self._connection])]

    def read_messages(self) -> bool:
        """Read what the run has said. Return whether its process has ended."""
        ended = not self.process.is_alive()  # before reading, so that its last words are read
        while not self._connection.closed:
            try:
                if not self._connection.poll():
                    break
                self._take(*self._connection.recv())
            except (EOFError, OSError):  # the other end is closed
                self._connection.close()
        if ended:
            self._connection.close()
        return ended

    def _take(self, kind: str, content: Any) -> None:
        """Take a message of the run."""
        if kind == "progress":
            self.line = content
        elif kind == "warning":
            report_once(*content)
        elif kind == "line":
            name = "" if self.job.config.label in content else f"{self.job.name}: "
            print(f"{name}{content}", file=sys.stderr, flush=True)
        else:
            self.outcome = (content,)


def _get_context() -> Any:
    """Return the way in which processes are started here."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def execute_in_process(job: RunJob, data: Data, known: Mapping[str, Any], connection: Connection) -> None:
    """Execute a job in a process that was started for it, and send what it says and how it ends.

    Args:
        job: the job.
        data: dataset of the run and its split.
        known: number of threads, what was read of the code, and environment of the command.
        connection: where messages are sent.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(known["environment"])
    adopt_known_code(known["code"])
    runtime.keep_freed_memory()
    torch.set_num_threads(known["threads"])
    hide_progress()
    send = _Sender(connection)
    sys.stdout = sys.stderr = _LineStream(send)
    arrived: list[int] = []

    def stop(number: int, frame: Any) -> None:
        arrived.append(number)
        if len(arrived) == 1:  # Ctrl-C reaches this process from the terminal and from the command
            raise KeyboardInterrupt

    try:
        with redirect_outside_imports(stop, signal.SIGINT, *list_stop_signals()):
            send("end", _execute(job, data, send))
    except KeyboardInterrupt:
        os._exit(_STOPPED)


def _execute(job: RunJob, data: Data, send: Callable[[str, Any], None]) -> str | None:
    """Execute a job. Return the description of its error; None if there was no error."""
    watchers: list[Logger] = []
    if isinstance(job.config, TrainedRunConfig):
        watchers.append(ProgressReporter(job, lambda text: send("progress", text)))
    else:
        send("progress", "combining scores")
    try:
        return run_job(
            job,
            *data,
            PretrainedStore(),
            watchers=watchers,
            report=lambda tracker, sentence: send("warning", (tracker, sentence)),
        )
    except HellmError as error:
        return str(error)
    except Exception as error:  # an error of a run is written into its record; this one is of what surrounds it
        return f"{type(error).__name__}: {take_last_line(error)}"


def _end_with_parent() -> None:
    """Wait until the command has ended in any way, and end this process then. Files are complete at any time."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(_STOPPED)


class _Sender:
    """Sends messages, also from several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def __call__(self, kind: str, content: Any) -> None:
        with self._lock:
            self._connection.send((kind, content))


class _LineStream(io.TextIOBase):
    """A stream that sends each line that is written to it."""

    def __init__(self, send: Callable[[str, Any], None]) -> None:
        self._send, self._text = send, ""

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Take text, and send its complete lines."""
        *lines, self._text = (self._text + text).split("\n")
        for line in filter(str.strip, lines):
            self._send("line", line)
        return len(text)
