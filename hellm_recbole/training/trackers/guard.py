"""A tracker that cannot stop a run: if it fails, this is said once, and the run goes on without it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from hellm_recbole.errors import HellmError, shorten, strip_controls, take_first_line
from hellm_recbole.training.trackers.base import Outcome, TrackedRun, Tracker
from hellm_recbole.training.trackers.opening import open_tracker

Report = Callable[[str, str], None]  # (name of a tracker, sentence about its failure)

_reported: set[str] = set()  # trackers whose failure this process has printed
_failing: set[str] = set()  # trackers whose last use in this process failed


def report_once(tracker: str, sentence: str) -> None:
    """Print that a tracker has failed, unless this process has already said so."""
    if tracker not in _reported:
        _reported.add(tracker)
        print(f"warning: {strip_controls(sentence)}", file=sys.stderr, flush=True)


def is_failing(tracker: str) -> bool:
    """Return whether the last use of a tracker in this process failed."""
    return tracker in _failing


class GuardedTracker:
    """A run in a tracker, which is opened when there is something to log.

    An error of the tracker is reported, and the values wait in memory. At the end of the run all of them are sent if
    the tracker works again. A tracker that failed in an earlier run of this process is tried only at the end, so that
    a command of many runs does not wait for it twice in each.

    Args:
        name: name of the tracker.
        run: the run.
        report: function that reports a failure.
    """

    def __init__(self, name: str, run: TrackedRun, report: Report = report_once) -> None:
        self._name, self._run, self._report = name, run, report
        self._tracker: Tracker | None = None
        self._waiting: list[tuple[int, Mapping[str, float]]] = []
        self._failed = name in _failing

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
        return self._try(lambda: self._finish(outcome))

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
            _failing.add(self._name)
            reason = str(error) if isinstance(error, HellmError) else take_first_line(error)
            self._report(
                self._name,
                f"the tracker {self._name} failed ({shorten(reason)}); runs go on without it, and each tries it once "
                "more when it ends; nothing is lost, for the folder of results has all values",
            )
            return False
        _failing.discard(self._name)
        return True
