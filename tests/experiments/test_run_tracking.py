"""What a tracker has after a run of each kind; the trackers themselves are tested in `tests/training/trackers/`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.jobs import RunJob, check_earlier_run, run_job
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.results import RunResult, read_result
from hellm_recbole.experiments.run_tracking import describe_outcome, leave_out_loggers
from hellm_recbole.training.trackers import guard
from tests.toy_combined import build_context, build_resolver
from tests.toy_records import toy_record

LOGGERS = Override(None, "loggers", ["mlflow"], "--set")


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of MLflow with a store of files."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    mlflow.set_tracking_uri(None)
    return mlflow.MlflowClient()


def make_job(name: str, output: Path) -> RunJob:
    config = build_resolver(LOGGERS).resolve(name)
    return RunJob(config, build_context(output), False, (), False, "toy")


def find_runs(client: Any) -> dict[str, Any]:
    """Find all runs, name -> run."""
    experiment = client.get_experiment_by_name("hellm-recbole")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_runs_of_all_kinds_have_their_test_metrics_and_tags(
    client: Any, tmp_path: Path, toy_dataset: Dataset, toy_split: Split
) -> None:
    names = ("Pop", "LightGCN", "LightGCN-priors")
    for name in names:
        assert run_job(make_job(name, tmp_path), toy_dataset, toy_split, PretrainedStore()) is None
    runs = find_runs(client)
    assert set(runs) == {f"toy/{name}/7" for name in names}
    for name, run in runs.items():
        record = read_result(tmp_path / name / "record.json")
        assert run.info.status == "FINISHED"
        for metric, value in record.metrics["test"].items():
            (found,) = client.get_metric_history(run.info.run_id, f"test/{metric.replace('@', '_at_')}")
            assert (found.value, found.step) == (value, record.best_epoch or 0)
        expected = {
            "model": record.label,
            "dataset": "toy",
            "split": "leave-one-out",
            "split_hash": toy_split.sha256,
            "mask_policy": "seen",
            "seed": "7",
            "preset": "quick",
            "git_commit": str(record.git_commit),
            "git_dirty": str(record.git_dirty).lower(),
        }
        assert {key: run.data.tags[key] for key in expected} == expected
        assert len(run.data.tags["identity"]) == 64
        assert record.settings["loggers"]["value"] == ["mlflow"]
    assert runs["toy/LightGCN/7"].data.metrics["best_epoch"] == 2
    assert "batch_size" in runs["toy/LightGCN/7"].data.params
    assert "train_seconds" in runs["toy/LightGCN-priors/7"].data.metrics


class Stop:
    """A logger that stops the run after an epoch."""

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        pass

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


def test_a_stopped_run_is_continued_and_a_finished_one_logs_nothing(
    client: Any, tmp_path: Path, toy_dataset: Dataset, toy_split: Split
) -> None:
    job, store = make_job("SASRec", tmp_path), PretrainedStore()
    with pytest.raises(KeyboardInterrupt):
        run_job(job, toy_dataset, toy_split, store, watchers=[Stop()])
    (stopped,) = find_runs(client).values()
    assert stopped.info.status == "KILLED"
    assert not any(name.startswith("test/") for name in stopped.data.metrics)
    assert run_job(job, toy_dataset, toy_split, store) is None
    (resumed,) = find_runs(client).values()
    assert (resumed.info.run_id, resumed.info.status) == (stopped.info.run_id, "FINISHED")
    steps = [metric.step for metric in client.get_metric_history(resumed.info.run_id, "seconds/epoch")]
    assert sorted(steps) == [1, 2, 3, 4]

    shutil.rmtree(tmp_path / "mlruns")
    finished = check_earlier_run(job, toy_split, store)
    assert finished.finished is not None
    assert run_job(finished, toy_dataset, toy_split, store) is None
    assert not (tmp_path / "mlruns").exists()


def test_a_tracker_that_does_not_answer_changes_no_result(
    tmp_path: Path, toy_dataset: Dataset, toy_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_failed_at", {})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(None)
    said: list[tuple[str, str]] = []
    problem = run_job(
        make_job("LightGCN", tmp_path),
        toy_dataset,
        toy_split,
        PretrainedStore(),
        report=lambda tracker, sentence: said.append((tracker, sentence)),
    )
    assert problem is None
    assert read_result(tmp_path / "toy" / "LightGCN" / "7" / "record.json").status == "success"
    ((tracker, sentence),) = said
    assert tracker == "mlflow"
    assert "(http://127.0.0.1:9 does not answer)" in sentence


def test_a_run_that_failed_is_logged_with_its_reason(
    client: Any, tmp_path: Path, toy_dataset: Dataset, toy_split: Split
) -> None:
    wrong = Override("LightGCN", "learning_rate", 1e30, "--set")
    config = build_resolver(LOGGERS, wrong).resolve("LightGCN")
    job = replace(make_job("LightGCN", tmp_path), config=config)
    problem = run_job(job, toy_dataset, toy_split, PretrainedStore())
    assert problem is not None
    (run,) = find_runs(client).values()
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"][:40] == problem[:40]


def test_the_outcome_has_the_metrics_of_plug_ins_too() -> None:
    result: RunResult = replace(toy_record(), plugin_metrics={"valid": {"MAP@5": 0.25}, "test": {"MAP@5": 0.5}})
    outcome = describe_outcome(result)
    assert outcome.summary["test/MAP@5"] == 0.5
    assert outcome.summary["best_valid/MAP@5"] == 0.25
    assert outcome.summary["train_seconds"] == result.train_seconds


def test_a_run_config_without_loggers_keeps_its_setting() -> None:
    config = build_resolver(LOGGERS).resolve("LightGCN")
    changed = leave_out_loggers(config)
    assert (changed.log.loggers, config.log.loggers) == ((), ("mlflow",))
    assert changed.resolved == config.resolved
