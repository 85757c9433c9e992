"""A tracker that cannot stop a run: if it fails, this is said once, and the run continues."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping

from hellm_recbole.errors import HellmError, shorten, strip_controls, take_first_line
from hellm_recbole.training.trackers.base import Outcome, TrackedRun, Tracker, hide_login
from hellm_recbole.training.trackers.opening import open_tracker

Report = Callable[[str, str], None]  # (name of a tracker, sentence about its failure)

RETRY_AFTER_S = 60.0  # how long a tracker that has failed is left alone

_reported: set[str] = set()  # trackers whose failure this process has printed
_failed_at: dict[str, float] = {}  # tracker whose last use in this process failed -> time of it, in seconds


def report_once(tracker: str, sentence: str) -> None:
    """Print that a tracker has failed, unless this process has already said so."""
    if tracker not in _reported:
        _reported.add(tracker)
        print(f"warning: {strip_controls(sentence)}", file=sys.stderr, flush=True)


def describe_failure(error: BaseException) -> str:
    """Describe an error in one short line, without logins: ours as it is, that of a package by its first line."""
    reason = str(error) if isinstance(error, HellmError) else take_first_line(error)
    return shorten(hide_login(reason))


def is_failing(tracker: str) -> bool:
    """Return whether the last use of a tracker in this process failed, a short time ago."""
    return time.monotonic() - _failed_at.get(tracker, -math.inf) < RETRY_AFTER_S


class GuardedTracker:
    """A run in a tracker, which is opened when there is something to log.

    An error of the tracker is reported, and the values wait in memory. At the end of the run all of them are sent if
    the tracker works again. A command of many short runs does not wait in each of them for a tracker that has just
    failed.

    Args:
        name: name of the tracker.
        run: the run.
        report: function that reports a failure.
    """

    def __init__(self, name: str, run: TrackedRun, report: Report = report_once) -> None:
        self._name, self._run, self._report = name, run, report
        self._tracker: Tracker | None = None
        self._waiting: list[tuple[int, Mapping[str, float]]] = []
        self._failed = is_failing(name)

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Open the run inside its first long epoch; the steps themselves are not logged."""
        if not self._failed and self._tracker is None:
            self._try(lambda: self._open(epoch))

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Log the values of one epoch."""
        self._waiting.append((epoch, dict(values)))
        if not self._failed:
            self._try(self._send)

    def finish(self, outcome: Outcome) -> bool:
        """Log the outcome of the run and close it. Return whether the tracker has got all values."""
        return not is_failing(self._name) and self._try(lambda: self._finish(outcome))

    def close(self) -> None:
        """Close the run without an outcome."""
        if self._tracker is not None:
            self._try(self._tracker.close)

    def _open(self, first_step: int | None) -> Tracker:
        if self._tracker is None:
            self._tracker = open_tracker(self._name, self._run, first_step)
        return self._tracker

    def _send(self) -> None:
        """Send the values that wait."""
        while self._waiting:
            epoch, values = self._waiting[0]
            self._open(epoch).log(epoch, values)
            self._waiting.pop(0)

    def _finish(self, outcome: Outcome) -> None:
        self._send()
        self._open(None).finish(outcome)

    def _try(self, action: Callable[[], object]) -> bool:
        """Use the tracker. Return whether it did not fail."""
        try:
            action()
        except Exception as error:  # whatever a tracker raises, the run goes on
            self._tracker, self._failed = None, True
            _failed_at[self._name] = time.monotonic()
            self._report(
                self._name,
                f"the tracker {self._name} failed ({describe_failure(error)}); the command goes on and tries it "
                "again later; nothing is lost: the folder of results has all values",
            )
            return False
        _failed_at.pop(self._name, None)
        return True
