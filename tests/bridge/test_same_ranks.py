"""Each row of `run.py --models all` on data with texts only has the same test ranks through RecBole's entry point."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.benchmarks import run
from tests.bridge.door import ROWS, SEED, find_ranks, rank_by_command, rank_by_recbole, read_test_ranks
from tests.toy_llm import small_values, tiny_llama

PLUS = "HeLLM-plus"  # not among them, since it reads a second encoding of the texts
PLUS_VALUES = {
    "HeLLM-plus.item_inputs": ["HeLLMPre", "SASRec"],
    "HeLLM-plus.item_start": "random",
    "HeLLM-plus.modalities": ["text"],
}
QUICK = ("Pop", "EASE", "BPR", "VBPR", "SASRec", "BSARec")  # one for each way of training
SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 64}


def give_settings(row: str) -> dict[str, Any]:
    """Return the settings of a row on the toy dataset, as values for RecBole."""
    if row == "TIGER":
        return {**SETTINGS, **{f"{row}.{key}": value for key, value in small_values(row).items()}}
    if row not in ("HeLLM", "CoLLM", "LLaRA", "E4SRec", PLUS):
        return SETTINGS
    values = {**SETTINGS, "llm": str(tiny_llama()), f"{row}.prefix_hidden": 8, f"{row}.micro_batch_size": 24}
    return values | PLUS_VALUES if row == PLUS else values


@pytest.mark.parametrize(
    "row", [row if row in QUICK else pytest.param(row, marks=pytest.mark.slow) for row in (*ROWS, PLUS)]
)
def test_ranks_are_equal_on_the_toy_dataset(row: str, workplace: Path) -> None:
    values = give_settings(row)
    arguments = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    expected = rank_by_command("toy", row, workplace / "results", *arguments)
    found, _ = rank_by_recbole("toy", ROWS.get(row, row), {**values, "data_path": "dataset"})
    assert found == expected
    assert len(set(expected.values())) > 3


@pytest.mark.slow
def test_ranks_are_equal_on_movielens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["--models", "all", "--dataset", "ml-100k", "--seeds", str(SEED), "--output", "results", "--threads", "1"]
    assert run.main([*words, "--preset", "quick", "--set", "epochs=2"]) == 0
    values = {"data_path": "dataset", "preset": "quick", "epochs": 2}
    expected = {path.parts[-3].partition("@")[0]: read_test_ranks(path) for path in find_ranks(Path("results/ml-100k"))}
    equal = [row for row, name in ROWS.items() if rank_by_recbole("ml-100k", name, values)[0] == expected[row]]
    assert equal == [*ROWS]


@pytest.mark.parametrize("row", ["VBPR", "SASRec"])
def test_ranks_are_equal_with_averaged_weights_and_rates_by_step(row: str, workplace: Path) -> None:
    values: dict[str, Any] = {**SETTINGS, "average_decay": 0.9, "schedule": "linear", "warmup_steps": 3}
    values |= {"decay_vectors": False, "weight_decay": 0.1, "learning_rate": 0.01}
    arguments = [part for key, value in values.items() for part in ("--set", f"{key}={str(value).lower()}")]
    expected = rank_by_command("toy", row, workplace / "results", *arguments)
    found, _ = rank_by_recbole("toy", ROWS[row], {**values, "data_path": "dataset"})
    assert found == expected
    assert len(set(expected.values())) > 3
    plain = [part for part in arguments if part not in ("--set", "average_decay=0.9")]
    words = [part for value in plain for part in ("--set", value)]
    assert rank_by_command("toy", row, workplace / "plain", *words) != expected
