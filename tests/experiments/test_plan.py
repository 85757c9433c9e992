from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.jobs import RunJob
from hellm_recbole.experiments.plan import describe_plan, find_earlier_results
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.system import runtime
from tests.toy_records import add_run, toy_record

CPU = torch.device("cpu")


def make_job(model: str, seed: int = 1, epochs: int = 10, output: Path = Path("results")) -> RunJob:
    config = resolve_run(model, "Toy", REGISTRY, "quick", [Override(None, "epochs", epochs, "--set epochs")])
    return RunJob(config, RunContext(output, seed, CPU), False, (), False, "Toy")


def record_run(model: str, **changes: Any) -> Any:
    settings = {"epochs": {"value": 10, "origin": "x"}}
    return toy_record(model=model, settings=settings, train_seconds=550.0, eval_seconds=50.0, epochs_run=5, **changes)


def test_the_plan_names_models_seeds_datasets_and_the_largest_number_of_epochs() -> None:
    jobs = [make_job(model, seed) for seed in (1, 2) for model in ("LightGCN", "VBPR")]
    assert describe_plan(jobs, []) == (
        "plan: 4 runs; models LightGCN, VBPR; seeds 1, 2; datasets Toy; at most 10 epochs each; expected time unknown"
    )


def test_finished_runs_are_counted_and_need_no_time() -> None:
    done = replace(make_job("LightGCN"), finished=toy_record())
    assert describe_plan([done], []) == "plan: 1 run; models LightGCN; seeds 1; datasets Toy; 1 finished before"
    assert "2 runs; models LightGCN, VBPR; seeds 1; datasets Toy; 1 finished before; at most" in describe_plan(
        [done, make_job("VBPR")], []
    )


@pytest.mark.parametrize(
    ("epochs", "minutes"),
    [(10, "10 min"), (20, "40 min")],  # 120 s an epoch: stopped after 5 as before; or trained to the last one
)
def test_the_time_is_that_of_earlier_runs(epochs: int, minutes: str) -> None:
    line = describe_plan([make_job("LightGCN", epochs=epochs)], [record_run("LightGCN"), record_run("VBPR")])
    assert line.endswith(f"expected time about {minutes}, from earlier runs")


def test_a_run_of_one_epoch_is_scaled_unless_the_model_makes_one_pass() -> None:
    short = {
        "settings": {"epochs": {"value": 1, "origin": "x"}},
        "epochs_run": 1,
        "train_seconds": 50.0,
        "eval_seconds": 10.0,
    }
    line = describe_plan([make_job("LightGCN", epochs=10)], [replace(record_run("LightGCN"), **short)])
    assert line.endswith("expected time about 10 min, from earlier runs")


def test_models_without_an_earlier_run_are_named() -> None:
    jobs = [make_job("LightGCN", seed) for seed in (1, 2)] + [make_job("VBPR")]
    line = describe_plan(jobs, [record_run("LightGCN"), record_run("LightGCN", dataset="Other")])
    assert line.endswith("expected time about 20 min, from earlier runs; no earlier run of VBPR")


def test_only_successful_runs_of_the_same_model_on_this_machine_tell_the_time(tmp_path: Path) -> None:
    here = {"device": runtime.describe_device(CPU), "threads": torch.get_num_threads()}
    add_run(tmp_path, [1, 2], model="LightGCN", seed=1, **here)
    add_run(tmp_path, [1, 2], model="LightGCN", seed=2, **{**here, "device": "another"})
    add_run(tmp_path, None, model="LightGCN", seed=3, **here)
    add_run(tmp_path, [1, 2], model="VBPR", **here)
    broken = add_run(tmp_path, [1, 2], model="LightGCN", seed=4, **here)
    broken.write_text("{")
    found = find_earlier_results([make_job("LightGCN", seed=9, output=tmp_path)])
    assert [(result.model, result.seed) for result in found] == [("LightGCN", 1)]


def test_runs_whose_pretrained_models_change_are_not_counted_as_finished() -> None:
    reader = replace(make_job("HeLLM"), finished=toy_record())
    names = reader.config.pretrained_models
    finished = [replace(make_job(name), finished=toy_record()) for name in names]
    assert "; 3 finished before" in describe_plan([*finished, reader], [])
    changed = [make_job(names[0]), *finished[1:]]
    line = describe_plan([*changed, reader], [])
    assert "; 1 finished before; 1 compared with earlier runs after the models that they read; at most" in line
    deferred = replace(make_job("HeLLM"), deferred=True)
    line = describe_plan([*finished, deferred], [])
    assert line.endswith("; 2 finished before; 1 compared with earlier runs after the models that they read")


def test_runs_that_others_read_are_counted_unless_they_are_finished() -> None:
    reader = make_job("HeLLM-without-U2U")
    read = [replace(make_job(name), is_pretrained=True) for name in reader.config.pretrained_models]
    assert [job.config.model for job in read] == ["HeLLMPre-without-U2U", "SASRec"]
    line = describe_plan([*read, reader], [])
    assert "; 2 trained first, because other runs read their embeddings; at most 10 epochs" in line
    line = describe_plan([replace(read[0], finished=toy_record()), read[1], reader], [])
    assert "; 1 finished before; 1 trained first, because other runs read their embeddings; at most" in line
    assert "trained first" not in describe_plan([make_job("SASRec")], [])
