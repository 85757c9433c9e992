from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hellm_recbole.training.trackers import guard
from hellm_recbole.training.trackers.base import Outcome, TrackedRun
from hellm_recbole.training.trackers.guard import GuardedTracker, is_failing


def block(run: TrackedRun) -> Path:
    """Put a file where TensorBoard needs a folder. Return its path."""
    run.folder.mkdir(parents=True)
    path = run.folder / "tensorboard"
    path.touch()
    return path


def test_a_failure_is_said_once_and_short_runs_do_not_try_again(
    tracked: TrackedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = []
    for number in (1, 2):
        run = replace(tracked, folder=tracked.folder / str(number))
        block(run)
        tracker = GuardedTracker("tensorboard", run)
        for epoch in (1, 2):
            tracker.step(epoch, 1, 9)
            tracker.log(epoch, {"loss/bpr": 0.5})
        outcomes.append(tracker.finish(Outcome("success")))
    assert outcomes == [False, False]
    assert is_failing("tensorboard")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the tracker tensorboard failed (FileExistsError: ")
    assert line.endswith("nothing is lost: the folder of results has all values")


def test_a_tracker_that_works_again_gets_everything_at_the_end(
    tracked: TrackedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "RETRY_AFTER_S", 0.0)
    blocking, said = block(tracked), []
    tracker = GuardedTracker("tensorboard", tracked, lambda name, sentence: said.append((name, sentence)))
    for epoch in (1, 2, 3):
        tracker.log(epoch, {"loss/bpr": epoch / 8})
    blocking.unlink()
    assert tracker.finish(Outcome("success", {"test/N@20": 0.25}, {}, 2))
    assert [name for name, _ in said] == ["tensorboard"]
    assert not is_failing("tensorboard")
    events = EventAccumulator(str(blocking)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/bpr")] == [(1, 0.125), (2, 0.25), (3, 0.375)]
    assert [event.value for event in events.Scalars("test/N@20")] == [0.25]


def test_nothing_is_opened_before_there_is_something_to_log(tracked: TrackedRun) -> None:
    GuardedTracker("tensorboard", tracked).close()
    assert not tracked.folder.exists()


def test_a_failure_does_not_print_a_password(tracked: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences: list[str] = []
    tracker = GuardedTracker("tensorboard", tracked, lambda _, sentence: sentences.append(sentence))

    def fail(*_: object) -> None:
        raise ConnectionError("no answer of http://user:secret@127.0.0.1:1/api")

    monkeypatch.setattr(guard, "open_tracker", fail)
    monkeypatch.setattr(guard, "_failed_at", {})
    assert not tracker.finish(Outcome("success"))
    assert "(ConnectionError: no answer of http://127.0.0.1:1/api)" in sentences[0]
