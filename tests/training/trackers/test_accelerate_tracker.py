"""The trackers of accelerate; those of packages that are not installed are skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import accelerate.logging
import accelerate.tracking
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hellm_recbole.training.trackers import accelerate_tracker
from hellm_recbole.training.trackers.accelerate_tracker import AccelerateTracker
from hellm_recbole.training.trackers.base import Outcome, TrackedRun, read_id


class NoState:
    """A stand-in for `PartialState` that nobody has made and nobody may make."""

    _shared_state: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        raise AssertionError("PartialState was made")


@pytest.fixture(autouse=True)
def no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (accelerate.tracking, accelerate.logging):
        monkeypatch.setattr(module, "PartialState", NoState)


def log_all(name: str, tracked: TrackedRun) -> AccelerateTracker:
    tracker = AccelerateTracker(name, tracked)
    for epoch in (1, 2):
        tracker.log(epoch, {"valid/N@20": epoch / 8})
    tracker.finish(Outcome("success", {"test/N@20": 0.25}, {"identity": "abc"}, 1))
    return tracker


def test_a_class_of_accelerate_works_without_its_state(tracked: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"tensorboard": lambda run, identifier, continued: {"logging_dir": str(run.folder)}}
    monkeypatch.setattr(accelerate_tracker, "OPTIONS", options)
    usual = accelerate.tracking.logger
    log_all("tensorboard", tracked)
    assert accelerate.tracking.logger is usual
    events = EventAccumulator(str(tracked.folder / "hellm-recbole")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("valid/N_at_20")] == [(1, 0.125), (2, 0.25)]
    assert [event.value for event in events.Scalars("test/N_at_20")] == [0.25]
    assert read_id(tracked.folder, "tensorboard") is not None


@pytest.mark.parametrize("name", [*accelerate_tracker.OPTIONS])
def test_the_further_trackers_take_a_run_and_continue_it(
    name: str, tracked: TrackedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, value in {
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "SWANLAB_MODE": "local",
        "COMET_START_ONLINE": "false",
        "COMET_API_KEY": "offline",
        "CLEARML_OFFLINE_MODE": "1",
    }.items():
        monkeypatch.setenv(variable, value)
    pytest.importorskip(name)  # now, for some packages read the environment when they are imported
    log_all(name, tracked)
    identifier = read_id(tracked.folder, name)
    assert identifier is not None
    tracker = AccelerateTracker(name, tracked)
    tracker.log(3, {"valid/N@20": 0.5})
    tracker.close()
    assert read_id(tracked.folder, name) == identifier
