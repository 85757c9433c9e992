"""The memory that a run is expected to need, from records, from models, or from the sizes of tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from hellm_recbole.baselines.ease import EASE
from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.data.split import Split
from hellm_recbole.experiments import row_memory
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.jobs import RunJob
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.results import read_result, write_result
from hellm_recbole.experiments.row_memory import estimate_table_bytes, measure_free_bytes, predict_row_bytes
from tests.toy_records import add_run


def make_job(model: str, results: Path, dataset: str = "toy") -> RunJob:
    config = Resolver(dataset, REGISTRY, "paper", ()).resolve(model)
    return RunJob(config, RunContext(results, 1, torch.device("cpu")), False, (), False, dataset)


def test_a_trained_model_is_estimated_from_its_tables(tmp_path: Path, toy_split: Split) -> None:
    """60 users, 40 items, 64 columns, 16 bytes a parameter with its state, three copies; a block of scores thrice."""
    job = make_job("LightGCN", tmp_path)
    scores = 3 * 4 * 60 * 40
    assert predict_row_bytes(job, toy_split, []) == (60 + 40) * 64 * 16 * 3 + scores
    features = sum(matrix.nbytes for matrix in toy_split.features.values())
    vbpr = make_job("VBPR", tmp_path).config
    assert estimate_table_bytes(vbpr, toy_split) == (60 + 40) * 64 * 16 * 3 + scores + 2 * features


def test_a_fitted_model_says_what_it_needs(tmp_path: Path, toy_split: Split) -> None:
    assert predict_row_bytes(make_job("EASE", tmp_path), toy_split, []) == EASE.estimate_bytes(toy_split.n_items)
    assert predict_row_bytes(make_job("Pop", tmp_path), toy_split, []) == 0


def test_a_record_of_another_seed_is_known_better(tmp_path: Path, toy_split: Split) -> None:
    add_run(tmp_path, [1, 5], model="LightGCN", seed=7)
    path = tmp_path / "Toy" / "LightGCN" / "7" / "record.json"
    job = make_job("LightGCN", tmp_path, "Toy")
    before = predict_row_bytes(job, toy_split, [])
    costs: Any = {"resident_bytes": 1, "row_bytes": 12345, "examples_per_epoch": None, "tokens_per_epoch": None}
    write_result(path.parent, replace(read_result(path), costs=costs))
    assert before != 12345
    assert predict_row_bytes(job, toy_split, []) == 12345


def test_what_other_runs_will_take_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {1: 30, 2: 80}

    class Process:
        def __init__(self, pid: int) -> None:
            if pid not in taken:
                raise psutil.NoSuchProcess(pid)
            self.rss = taken[pid]

        def memory_info(self) -> Process:
            return self

    monkeypatch.setattr(row_memory.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    monkeypatch.setattr(row_memory.psutil, "Process", Process)
    assert measure_free_bytes([]) == 1000
    assert measure_free_bytes([(1, 50), (2, 50), (3, 50)]) == 1000 - 20  # the third has ended, the second needs more
