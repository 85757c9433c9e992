from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import wandb

from hellm_recbole.errors import TrackerError
from hellm_recbole.training.trackers.base import Outcome, TrackedRun
from hellm_recbole.training.trackers.wandb_tracker import WandbTracker
from tests.wandb_files import OfflineRun, read_offline_runs


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    wandb.teardown()  # its settings are those of the first use in a process
    yield
    wandb.teardown()


def read_runs(folder: Path) -> list[OfflineRun]:
    """Read all runs, after the process of W&B has written everything."""
    wandb.teardown()
    return read_offline_runs(folder)


def test_a_run_has_config_curve_and_summary(tracked: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = WandbTracker(tracked, 1)
    for epoch in (1, 2):
        tracker.log(epoch, {"valid/N@20": epoch / 8})
    tracker.finish(Outcome("success", {"test/N@20": 0.25}, {"identity": "abc"}, 1))
    (run,) = read_runs(tracked.folder)
    assert (run.name, run.project, run.job_type, run.group) == ("toy/X/1", "hellm-recbole", "run", "")
    assert run.tags == ["dataset: toy", "model: X"]
    config = {"dropout": 0.5, "cutoffs": [5, 10], "llm": None, "dataset": "toy", "seed": "1", "identity": "abc"}
    assert config.items() <= run.config.items()
    assert [(entry["_step"], entry["valid/N@20"]) for entry in run.history] == [(1, 0.125), (2, 0.25)]
    assert run.summary["test/N@20"] == 0.25
    assert run.exit_code == 0
    assert wandb.run is None  # a run of the user's own code would stay active


def test_a_resumed_run_continues_and_the_best_trial_is_marked(
    tracked: TrackedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    trial = replace(tracked, kind="trial", group="toy/X/tune")
    WandbTracker(trial, 1).finish(Outcome("failed"))
    WandbTracker(trial, None).finish(Outcome("success", {"best_trial": 1.0}, {"best": "true"}))
    first, second = read_runs(tracked.folder)
    assert first.identifier == second.identifier
    assert (first.project, first.group, first.job_type) == ("mine", "toy/X/tune", "trial")
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert ("best" in first.tags, "best" in second.tags) == (False, True)


def test_a_missing_login_is_an_error_and_no_question(
    tracked: TrackedRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not (tmp_path / ".netrc").exists()
    with pytest.raises(TrackerError, match=r"there is no login; run `wandb login`, or set WANDB_MODE=offline"):
        WandbTracker(tracked, 1)
    assert capfd.readouterr().err == ""
