from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from hellm_recbole.errors import TrackerError
from hellm_recbole.training.trackers.base import Outcome, TrackedRun, read_id
from hellm_recbole.training.trackers.mlflow_tracker import MlflowTracker


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A client of a store of files, which is made faster than a database."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    mlflow.set_tracking_uri(None)  # that of the environment
    return mlflow.MlflowClient()


def find_runs(client: Any, name: str) -> dict[str, Any]:
    """Find the runs of an experiment, name -> run."""
    experiment = client.get_experiment_by_name(name)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_a_run_has_parameters_tags_curves_and_one_summary(
    client: Any, tracked: TrackedRun, request: pytest.FixtureRequest
) -> None:
    tracker = MlflowTracker(replace(tracked, tags={**tracked.tags, "git_commit": "c0ffee"}), 1)
    for epoch in (1, 2):
        tracker.log(epoch, {"valid/N@20": epoch / 8})
    tracker.finish(Outcome("success", {"test/N@20": 0.25}, {"identity": "abc"}, 2))
    (run,) = find_runs(client, request.node.name).values()
    assert (run.info.run_name, run.info.status) == ("toy/X/1", "FINISHED")
    assert run.data.params == {"dropout": "0.5", "cutoffs": "[5, 10]"}
    tags = {"dataset": "toy", "model": "X", "seed": "1", "mlflow.source.git.commit": "c0ffee", "identity": "abc"}
    assert tags.items() <= run.data.tags.items()
    history = client.get_metric_history(run.info.run_id, "valid/N_at_20")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.125), (2, 0.25)]
    (test,) = client.get_metric_history(run.info.run_id, "test/N_at_20")
    assert (test.step, test.value) == (2, 0.25)
    assert mlflow.active_run() is None


def test_a_resumed_run_continues_and_a_removed_one_starts_again(
    client: Any, tracked: TrackedRun, request: pytest.FixtureRequest
) -> None:
    first = MlflowTracker(tracked, 1)
    first.log(1, {"valid/N@20": 0.5})
    first.finish(Outcome("cancelled", {}, {"reason": "stopped"}))
    assert client.get_run(first.run_id).info.status == "KILLED"
    second = MlflowTracker(tracked, 2)
    assert second.run_id == first.run_id == read_id(tracked.folder, "mlflow")
    assert client.get_run(first.run_id).info.status == "RUNNING"
    second.log(2, {"valid/N@20": 0.25})
    second.finish(Outcome("success"))
    assert len(find_runs(client, request.node.name)) == 1
    history = client.get_metric_history(first.run_id, "valid/N_at_20")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]

    (tracked.folder / "trackers.json").write_text('{"mlflow": "0123456789abcdef"}')  # of another store
    assert MlflowTracker(tracked, 3).run_id not in ("0123456789abcdef", first.run_id)


def test_a_trial_is_a_nested_run_of_its_search(
    client: Any, tracked: TrackedRun, request: pytest.FixtureRequest
) -> None:
    search = replace(tracked, name="toy/X/tune", folder=tracked.folder / "search", kind="search", group="toy/X/tune")
    for number in (1, 2):
        trial = replace(
            search, name=f"trial-{number}", folder=tracked.folder / str(number), kind="trial", parent=search
        )
        MlflowTracker(trial, None).finish(Outcome("success"))
    runs = find_runs(client, request.node.name)
    assert set(runs) == {"toy/X/tune", "trial-1", "trial-2"}
    parent = runs["toy/X/tune"].info.run_id
    assert [runs[f"trial-{number}"].data.tags["mlflow.parentRunId"] for number in (1, 2)] == [parent, parent]
    assert runs["trial-1"].data.tags["group"] == "toy/X/tune"


def test_a_server_that_does_not_answer_is_named(
    tracked: TrackedRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(None)
    with pytest.raises(TrackerError, match=r"^http://127\.0\.0\.1:9 does not answer$"):
        MlflowTracker(tracked, 1)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"  # the user's value stays
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "10"
    assert "Retrying" not in capfd.readouterr().err
