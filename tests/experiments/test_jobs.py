from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.experiments import jobs, measured_run
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.jobs import RunJob, check_earlier_runs, run_job
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.results import RunResult
from tests.toy_llm import tiny_llama
from tests.toy_records import toy_record

RESULT = toy_record()


def make_job(model: str, output: Path, **changes: Any) -> RunJob:
    config = resolve_run(model, "toy", REGISTRY, "quick", [Override(None, "llm", str(tiny_llama()), "--llm")])
    job = RunJob(config, RunContext(output, 1, torch.device("cpu")), False, (), model == "SASRec", "toy")
    return replace(job, **changes)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models whose finished runs were searched; only that of LLaRA is found. Nothing is executed."""
    models: list[str] = []

    def find(config: Any, *_: Any) -> RunResult | None:
        models.append(config.model)
        return RESULT if config.model == "LLaRA" else None

    monkeypatch.setattr(jobs, "find_finished_run", find)
    executed = toy_record(status="failed", reason="executed")
    monkeypatch.setattr(measured_run, "execute_run", lambda *_, **__: executed)
    monkeypatch.setattr(jobs, "needs_export", lambda _: False)
    return models


def test_a_finished_run_is_searched_once_and_not_executed(
    searched: list[str], tmp_path: Path, toy_dataset: Dataset, toy_split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    store, data = PretrainedStore(), {"toy": (toy_dataset, toy_split)}
    (job,) = check_earlier_runs([make_job("LLaRA", tmp_path)], data, store)
    assert (job.finished, job.deferred) == (RESULT, False)
    assert run_job(job, *data["toy"], store) is None
    assert searched == ["LLaRA"]
    assert capsys.readouterr().out.count("finished before, kept") == 1


def test_a_finished_run_is_searched_again_if_a_model_that_it_reads_is_executed_before(
    searched: list[str], tmp_path: Path, toy_dataset: Dataset, toy_split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    store, data = PretrainedStore(), {"toy": (toy_dataset, toy_split)}
    given = [make_job("SASRec", tmp_path, fresh=True), make_job("LLaRA", tmp_path)]
    first, second = check_earlier_runs(given, data, store)
    assert (first.finished, second.finished, second.deferred) == (None, RESULT, True)
    assert [run_job(job, *data["toy"], store) for job in (first, second)] == ["executed", None]
    assert searched == ["LLaRA", "LLaRA"]
    assert capsys.readouterr().out.count("finished before, kept") == 1


def test_a_run_whose_embeddings_are_missing_is_searched_only_when_its_turn_comes(
    searched: list[str],
    tmp_path: Path,
    toy_dataset: Dataset,
    toy_split: Split,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(jobs, "needs_export", lambda _: True)
    store, data = PretrainedStore(), {"toy": (toy_dataset, toy_split)}
    job = make_job("LLaRA", tmp_path)
    job.folder.mkdir(parents=True)
    (job.folder / "record.json").write_text("")
    (job,) = check_earlier_runs([job], data, store)
    assert (job.finished, job.deferred, searched) == (None, True, [])
    assert run_job(job, *data["toy"], store) is None
    assert searched == ["LLaRA"]
    assert capsys.readouterr().out.count("finished before, kept") == 1


def test_a_job_is_sent_to_a_worker_with_all_that_it_needs(tmp_path: Path) -> None:
    job = make_job("LLaRA", tmp_path, finished=RESULT, position="2/3")
    assert pickle.loads(pickle.dumps(job)) == job
