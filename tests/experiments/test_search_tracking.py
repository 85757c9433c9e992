"""What trackers have after a search; a search on a real cluster is in `tests/benchmarks/test_tune.py`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import mlflow
import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.search_tracking import SearchTracking, make_search_tracking, read_logged
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.training.trackers import guard
from tests.toy_records import toy_search, toy_trial
from tests.toy_searches import make_request, make_task
from tests.wandb_files import read_offline_runs

FAILED: Any = {"status": "failed", "reason": "loss is nan", "valid": {}, "curve": ()}
TRIALS = (
    toy_trial(1, 0.125),
    toy_trial(2, 0.25),
    toy_trial(3, 0.0, **FAILED),
)


def track(split: Split, *trackers: str) -> tuple[SearchTracking, SearchResult]:
    """Make the trackers of a search of three trials, and its result."""
    request = make_request(overrides=(Override(None, "loggers", list(trackers), "--set"),))
    task = make_task(split, {"n_layers": [1, 2, 3]}, request=request)
    result = toy_search(TRIALS)
    return make_search_tracking(task), result


def log_search(split: Split, folder: Path, *trackers: str) -> None:
    """Log a search whose last two trials ended in another process."""
    tracking, result = track(split, *trackers)
    tracking.log_trial(folder, TRIALS[0])
    pickle.loads(pickle.dumps(tracking)).finish(folder, result)
    assert read_logged(folder) == {tracker: [1, 2, 3] for tracker in trackers}


def test_mlflow_has_a_nested_run_for_each_trial(
    toy_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    mlflow.set_tracking_uri(None)
    log_search(toy_split, tmp_path, "mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("hellm-recbole")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["toy/LightGCN/tune", *(f"toy/LightGCN/tune/trial-00{number}" for number in (1, 2, 3))]
    search = runs["toy/LightGCN/tune"]
    assert search.data.metrics["best_trial"] == 2
    assert search.data.metrics["best_valid/N_at_20"] == 0.25
    assert search.data.tags["best/n_layers"] == "2"
    trials = [runs[f"toy/LightGCN/tune/trial-00{number}"] for number in (1, 2, 3)]
    assert {trial.data.tags["mlflow.parentRunId"] for trial in trials} == {search.info.run_id}
    assert [trial.data.params["n_layers"] for trial in trials] == ["1", "2", "3"]
    assert [trial.info.status for trial in trials] == ["FINISHED", "FINISHED", "FAILED"]
    assert [trial.data.tags.get("best") for trial in trials] == [None, "true", None]
    assert trials[2].data.tags["reason"] == "loss is nan"
    curve = client.get_metric_history(trials[1].info.run_id, "valid/N_at_20")
    assert [(metric.step, metric.value) for metric in curve] == [(1, 0.125), (2, 0.25)]
    tags = {"dataset": "toy", "split": "leave-one-out", "split_hash": toy_split.sha256, "seed": "2024", "trial": "2"}
    assert tags.items() <= trials[1].data.tags.items()
    assert not any(name.startswith("test/") for run in runs.values() for name in run.data.metrics)


def test_wandb_has_the_trials_in_a_group(toy_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_search(toy_split, tmp_path, "wandb")
    wandb.teardown()
    runs = {run.name: run for run in read_offline_runs(tmp_path)}  # of two files of a run, the later one
    assert {run.group for run in runs.values()} == {"toy/LightGCN/tune"}
    search, *trials = [runs[name] for name in sorted(runs)]
    assert (search.job_type, search.summary["best_trial"], search.config["best/n_layers"]) == ("search", 2, "2")
    assert [trial.job_type for trial in trials] == ["trial"] * 3
    assert [trial.config["n_layers"] for trial in trials] == [1, 2, 3]
    assert trials[0].summary["best_valid/N@20"] == 0.125
    assert ["best" in trial.tags for trial in trials] == [False, True, False]


def test_tensorboard_has_the_trials_side_by_side(toy_split: Split, tmp_path: Path) -> None:
    log_search(toy_split, tmp_path, "tensorboard")
    folders = sorted((tmp_path / "trackers").glob("*/tensorboard"))
    assert [folder.parent.name for folder in folders] == ["trial-001", "trial-002", "trial-003"]
    first, second, _ = [EventAccumulator(str(folder)).Reload() for folder in folders]
    assert [(event.step, event.value) for event in first.Scalars("valid/N@20")] == [(1, 0.0625), (2, 0.125)]
    assert "best_trial" not in first.Tags()["scalars"]
    assert [event.value for event in second.Scalars("best_trial")] == [1.0]


def test_a_tracker_that_does_not_answer_is_tried_once(
    toy_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guard, "_failed_at", {})
    monkeypatch.setattr(guard, "_reported", set())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(None)
    tracking, result = track(toy_split, "mlflow")
    for trial in TRIALS:
        tracking.log_trial(tmp_path, trial)
    tracking.finish(tmp_path, result)
    assert read_logged(tmp_path) == {}
    (line,) = capsys.readouterr().err.splitlines()
    assert "the tracker mlflow failed (http://127.0.0.1:9 does not answer)" in line


def test_a_damaged_list_of_logged_trials_is_one_warning_and_written_again(
    toy_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "trackers" / "logged.json"
    file.parent.mkdir()
    file.write_text("{")
    log_search(toy_split, tmp_path, "tensorboard")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {file} cannot be read (JSONDecodeError: ")


def test_a_list_that_cannot_be_written_stops_nothing(
    toy_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trackers" / "logged.json").mkdir(parents=True)
    tracking, result = track(toy_split, "tensorboard")
    tracking.log_trial(tmp_path, TRIALS[0])
    tracking.finish(tmp_path, result)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert "logged.json" in line
