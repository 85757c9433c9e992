"""Which run starts when: with processes that end when the test says so. Real ones are in `test_run_process.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.experiments import side_by_side
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.jobs import JobLocks, RunJob
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.side_by_side import GIB, Places, _Schedule, choose_places, list_gpus

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)


class FakeProcess:
    """A run that ends when the test says so."""

    started: ClassVar[list[FakeProcess]] = []

    def __init__(self, job: RunJob, data: Any, threads: int, predicted_bytes: int) -> None:
        self.job, self.threads, self.predicted_bytes = job, threads, predicted_bytes
        self.line, self.outcome, self.ended = "starting", (None,), False
        self.process = SimpleNamespace(pid=0, exitcode=0, terminate=self.end, kill=self.end, join=lambda *_: None)
        self.started.append(self)

    def end(self) -> None:
        self.ended = True

    def list_waitable(self) -> list[Any]:
        return []

    def read_messages(self) -> bool:
        return self.ended


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeProcess.started.clear()
    monkeypatch.setattr(side_by_side, "RunProcess", FakeProcess)
    monkeypatch.setattr(side_by_side, "POLL_EVERY_S", 0.0)
    monkeypatch.setattr(side_by_side, "predict_row_bytes", lambda *_: 0)
    monkeypatch.setattr(side_by_side, "measure_free_bytes", lambda *_: 100 * GIB)


def make_job(model: str, device: torch.device = CPU) -> RunJob:
    config = Resolver("toy", REGISTRY, "paper", ()).resolve(model)
    return RunJob(config, RunContext(Path("results"), 1, device), False, (), False, "toy")


def make_schedule(jobs: list[RunJob], n_jobs: int, gpus: tuple[torch.device, ...] = ()) -> _Schedule:
    data: Any = {"toy": (None, None)}
    return _Schedule(jobs, data, Places(n_jobs, 1, gpus), JobLocks())


def step(schedule: _Schedule, *ending: str) -> list[str]:
    """End some runs, and return the models of those that have started since."""
    before = len(FakeProcess.started)
    for fake in FakeProcess.started:
        fake.ended = fake.ended or fake.job.config.model in ending
    schedule.wait()
    schedule.start_runs()
    return [fake.job.config.model for fake in FakeProcess.started[before:]]


def test_runs_start_in_their_order_when_a_place_is_free() -> None:
    schedule = make_schedule([make_job(name) for name in ("Pop", "BPR", "EASE", "LightGCN")], 2)
    assert step(schedule) == ["Pop", "BPR"]
    assert step(schedule) == []
    assert step(schedule, "BPR") == ["EASE"]
    assert step(schedule, "Pop", "EASE") == ["LightGCN"]
    assert step(schedule, "LightGCN") == []
    assert (schedule.is_open, schedule.n_done, schedule.n_failed) == (False, 4, 0)
    assert {fake.job.context.jobs for fake in FakeProcess.started} == {2}


def test_a_run_starts_after_those_that_it_reads_and_a_later_one_may_start_before_it() -> None:
    names = ["BPR", "LightGCN", "Fusion(BPR,LightGCN)", "Pop"]
    schedule = make_schedule([make_job(name) for name in names], 3)
    assert step(schedule) == ["BPR", "LightGCN", "Pop"]
    assert step(schedule, "BPR", "Pop") == []
    assert step(schedule, "LightGCN") == ["Fusion(BPR,LightGCN)"]


def test_a_run_waits_for_memory_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = {"BPR": 1, "EASE": 50 * GIB, "Pop": 1}
    monkeypatch.setattr(side_by_side, "predict_row_bytes", lambda job, *_: needed[job.config.model])
    monkeypatch.setattr(side_by_side, "measure_free_bytes", lambda claims: 10 * GIB)
    schedule = make_schedule([make_job(name) for name in ("BPR", "EASE", "Pop")], 2)
    assert step(schedule) == ["BPR", "Pop"]
    assert step(schedule, "Pop") == []
    assert step(schedule) == []
    said = capsys.readouterr().err
    assert said.count("EASE on toy, seed 1: waits for other runs, because it needs about 50.") == 1
    assert "10.0 GiB are free" in said
    assert step(schedule, "BPR") == ["EASE"]  # alone, it runs as it would without others


def test_on_a_gpu_fitted_models_run_on_the_cpu_beside_one_run_for_each_gpu() -> None:
    names = ["BPR", "LightGCN", "VBPR", "Pop", "EASE"]
    schedule = make_schedule([make_job(name, torch.device("cuda")) for name in names], 4, (FIRST, SECOND))
    assert step(schedule) == ["BPR", "LightGCN", "Pop", "EASE"]
    assert [fake.job.context.device for fake in FakeProcess.started] == [FIRST, SECOND, CPU, CPU]
    assert step(schedule, "Pop") == []
    assert step(schedule, "LightGCN") == ["VBPR"]
    assert FakeProcess.started[-1].job.context.device == SECOND


def test_stopping_ends_all_processes() -> None:
    schedule = make_schedule([make_job("Pop"), make_job("BPR")], 2)
    step(schedule)
    schedule.stop()
    assert [fake.ended for fake in FakeProcess.started] == [True, True]


@pytest.mark.parametrize(
    ("n_runs", "wanted", "threads", "places"),
    [(1, None, 8, (1, 8)), (3, None, 8, (3, 2)), (9, None, 8, (8, 1)), (9, 2, 8, (2, 4)), (9, 3, 1, (3, 1)),
     (9, 1, 8, (1, 8)), (0, None, 8, (1, 8)), (9, None, 1, (1, 1))],
)  # fmt: skip
def test_threads_are_shared_out(n_runs: int, wanted: int | None, threads: int, places: tuple[int, int]) -> None:
    found = choose_places([make_job("Pop")] * n_runs, wanted, threads, CPU)
    assert (found.jobs, found.threads) == places


def test_finished_runs_take_no_place() -> None:
    finished: Any = SimpleNamespace(status="success")
    jobs = [make_job("Pop"), replace(make_job("BPR"), finished=finished), replace(make_job("EASE"), finished=finished)]
    assert choose_places(jobs, None, 4, CPU) == Places(1, 4)


def test_a_gpu_that_is_named_is_the_only_one() -> None:
    assert list_gpus(SECOND) == (SECOND,)
    assert list_gpus(torch.device("mps")) == (torch.device("mps"),)
    assert list_gpus(CPU) == ()
    jobs = [make_job("BPR", SECOND), make_job("LightGCN", SECOND), make_job("Pop", SECOND)]
    assert choose_places(jobs, None, 8, SECOND) == Places(2, 4, (SECOND,))
