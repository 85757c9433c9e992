"""The plan of an experiment: what is there, what is missing, and how long it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks.tasks.reproduction_plan import (
    FINISHED,
    PlannedWork,
    describe_work,
    find_stopped_runs,
    list_run_jobs,
    locate_study,
    plan_runs,
    plan_studies,
)
from hellm_recbole.config.request import Override, RunRequest
from hellm_recbole.experiments.resolve import Resolver, resolve_run
from hellm_recbole.experiments.sweeps import write_search
from hellm_recbole.report.studies import Study
from hellm_recbole.system import runtime
from tests.toy_records import add_run, toy_search, toy_trial

EPOCHS = Override(None, "epochs", 10, "--set epochs=10")
HERE: dict[str, Any] = {"device": runtime.describe_device(torch.device("cpu")), "threads": 1}
# 120 s an epoch, of at most 10; stopped after 5.
TIMES: dict[str, Any] = {
    "settings": {"epochs": {"value": 10, "origin": "x"}}, "train_seconds": 550.0, "eval_seconds": 50.0, "epochs_run": 5,
}  # fmt: skip


def make_run_request(output: Path, **changes: Any) -> RunRequest:
    request = RunRequest(
        models=(), datasets=("Toy",), preset="paper", overrides=(EPOCHS,), data_path=None, output=output, device="cpu",
        threads=1, seeds=(2024,), tuned=False, ray=None, protocol="paper", exports=(), export_k=None, fresh=False,
        dry_run=False,
    )  # fmt: skip
    return replace(request, **changes)


def plan(models: list[str], request: RunRequest, *, in_this_process: bool = True) -> list[PlannedWork]:
    resolver = Resolver("Toy", REGISTRY, request.preset, request.overrides)
    return plan_runs(list_run_jobs(resolver, models, request), models, in_this_process=in_this_process)


def test_each_run_has_a_state_and_a_time(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 2], model="LightGCN", **HERE, **TIMES)
    add_run(tmp_path, None, model="VBPR")
    add_run(tmp_path, None, model="BM3", status="cancelled")
    (tmp_path / "Toy" / "GRCN" / "2024" / "checkpoint").mkdir(parents=True)
    request = make_run_request(tmp_path, seeds=(2024, 2025))
    assert plan(["BM3"], request)[0].state == "stopped before it finished"
    assert plan(["LightGCN", "VBPR", "GRCN"], request) == [
        PlannedWork("LightGCN, seed 2024", FINISHED, 0.0),
        PlannedWork("VBPR, seed 2024", "failed before", None),
        PlannedWork("GRCN, seed 2024", "stopped before it finished", None),
        PlannedWork("LightGCN, seed 2025", "missing", 600.0),
        PlannedWork("VBPR, seed 2025", "missing", None),
        PlannedWork("GRCN, seed 2025", "missing", None),
    ]
    assert plan(["LightGCN"], request, in_this_process=False)[1].seconds is None


def test_earlier_runs_of_the_rows_are_deleted_with_fresh(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 2], model="SASRec", family="sequential")
    add_run(tmp_path, [1, 2], model="HeLLMPre", family="multimodal")
    found = plan(["HeLLM", "HeLLMPre"], make_run_request(tmp_path, fresh=True))
    assert [(work.name.partition("@")[0], work.state) for work in found] == [
        ("HeLLMPre, seed 2024", "deleted and run again (--fresh)"),
        ("SASRec, seed 2024 (its embeddings are read)", FINISHED),
        ("HeLLM", "missing"),
    ]


def test_the_description_sums_up_what_is_known() -> None:
    planned = [PlannedWork("a", FINISHED, 0.0), PlannedWork("b", "missing", 90.0), PlannedWork("c", "missing", 300.0)]
    *lines, total, _conditions = describe_work("Title", planned, "run").splitlines()
    assert lines[0] == "Title"
    assert [line.split()[:2] for line in lines[2:]] == [["a", FINISHED], ["b", "missing"], ["c", "missing"]]
    assert lines[3].endswith("about 2 min")
    assert total == "plan: 3 runs; 1 finished, 2 to run; expected time in all about 6 min"
    unknown = [*planned, PlannedWork("d", "missing", None)]
    assert (
        describe_work("Title", unknown, "run")
        .splitlines()[-2]
        .endswith("expected time in all about 6 min, and 1 of unknown time, because no earlier run tells it")
    )
    assert describe_work("Title", unknown[-1:], "study").endswith("1 to run; expected time in all unknown")
    assert "\nplan: 1 run; 1 finished, 0 to run\n" in describe_work("Title", planned[:1], "run")


@pytest.mark.parametrize(
    ("state", "condition"),
    [
        (FINISHED, "a finished study is kept if its settings and inputs have not changed"),
        ("stopped before it finished", "a stopped study is resumed if nothing that it depends on has changed"),
        ("failed before", "a failed study is run again, from its checkpoint if nothing that it depends on has changed"),
    ],
)
def test_the_description_says_on_what_condition_earlier_work_is_used(state: str, condition: str) -> None:
    planned = [PlannedWork("a", state, None), PlannedWork("b", "missing", None), PlannedWork("c", state, None)]
    assert describe_work("Title", planned, "study").splitlines()[-1] == (
        f"not compared yet: {condition}; otherwise the command refuses it, and --fresh starts from scratch"
    )
    assert "not compared yet" not in describe_work("Title", planned[1:2], "study")


def test_stopped_runs_have_a_checkpoint_and_no_record(tmp_path: Path) -> None:
    for label in ("Pop", "BPR", "GRCN"):
        (tmp_path / "Toy" / label / "7").mkdir(parents=True)
    for label in ("Pop", "BPR"):
        (tmp_path / "Toy" / label / "7" / "checkpoint").mkdir()
    (tmp_path / "Toy" / "BPR" / "7" / "record.json").touch()
    assert find_stopped_runs(tmp_path, "Toy", ["Pop", "BPR", "GRCN", "VBPR"]) == {"Pop"}


@pytest.mark.parametrize(("threads", "minutes"), [(1, 40.0), (2, 20.0), (9, 10.0)])  # four trials of 10 minutes
def test_trials_of_a_study_run_side_by_side(tmp_path: Path, threads: int, minutes: float) -> None:
    config = resolve_run("HeLLMPre", "Toy", REGISTRY, "paper", [EPOCHS])
    studies = {"a": Study({"n_neighbors": [1, 2, 3]}, ({"n_neighbors": 4},)), "b": Study({"emb_dim": [1, 2]})}
    request = make_run_request(tmp_path, threads=threads)
    assert [work.seconds for work in plan_studies(config, "Toy", studies, request)] == [None, None]
    add_run(tmp_path, [1, 2], model="HeLLMPre", family="multimodal", **HERE, **TIMES)
    first, _ = plan_studies(config, "Toy", studies, request)
    assert first == PlannedWork("a, 4 trials of HeLLMPre", "missing", 60 * minutes)
    assert plan_studies(config, "Toy", studies, replace(request, ray="auto"))[0].seconds is None


def test_finished_studies_tell_the_time_of_others(tmp_path: Path) -> None:
    config = resolve_run("HeLLMPre", "Toy", REGISTRY, "paper", [EPOCHS])
    studies = {"a": Study({"n_neighbors": [1, 2]}), "b": Study({"emb_dim": [1, 2]}), "c": Study({"n_layers": [1, 2]})}
    trials = [toy_trial(n, 0.1, values={"n_neighbors": n}, seconds=60.0 * n) for n in (1, 2)]
    search = toy_search(trials, row="HeLLMPre", name="study-a", space={"n_neighbors": [1, 2]}, settings={"epochs": 10})
    write_search(locate_study(tmp_path, "Toy", config, "a"), search)
    started = locate_study(tmp_path, "Toy", config, "b")
    started.mkdir(parents=True)
    (started / "request.json").write_text("{}")
    found = plan_studies(config, "Toy", studies, make_run_request(tmp_path))
    assert [(work.state, work.seconds) for work in found] == [
        (FINISHED, 0.0), ("stopped before it finished", 180.0), ("missing", 180.0),
    ]  # fmt: skip
    other = resolve_run("HeLLMPre", "Toy", REGISTRY, "paper", [replace(EPOCHS, value=99)])
    assert plan_studies(other, "Toy", studies, make_run_request(tmp_path))[2].seconds is None
