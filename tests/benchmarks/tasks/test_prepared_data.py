"""The splits of `--split` in commands and in the Python API."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hellm_recbole.api import load_dataset, load_run, train_all
from hellm_recbole.api import run as run_models
from hellm_recbole.benchmarks import run
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import ModelError, ResultError
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import read_result
from tests.toy import write_prepared

QUICK = ["--set", "epochs=2", "--set", "batch_size=64", "--threads", "1"]
KIND = "time-line:valid_share=0.2,test_share=0.2"


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset) -> Path:
    """The working folder, with the toy dataset and with times in it. The first user comes after all others."""
    monkeypatch.chdir(tmp_path)
    assert toy_dataset.time is not None
    times = toy_dataset.time + 100 * (toy_dataset.user == 1)
    write_prepared(tmp_path / "dataset" / "toy", replace(toy_dataset, time=times, time_known=True))
    return tmp_path


def test_a_run_on_a_time_line_is_recorded_and_loaded(timed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--models", "Pop,VBPR", "--dataset", "toy", *QUICK]
    assert run.main([*words, "--split", KIND]) == 0
    out = capsys.readouterr().out
    assert f"toy: split {KIND}: validation from" in out
    record = read_result(timed / "results" / "toy" / "VBPR" / "2024" / "record.json")
    split = load_dataset("toy", split=KIND).split
    assert (record.split_kind, record.split_hash, record.n_candidates) == (KIND, split.sha256, split.n_items)
    assert record.split_details == split.details  # type: ignore[attr-defined]
    assert record.split_details is not None
    assert f"Split {KIND}: validation from {record.split_details['valid_from']}" in out  # the caption
    model = load_run(timed / "results" / "toy" / "VBPR" / "2024")  # finds the split in the record
    ranks = read_ranks(timed / "results" / "toy" / "VBPR" / "2024" / "ranks.npz")["test"]
    assert model.rank("test").seen.tolist() == ranks.rank.tolist()
    with pytest.raises(ResultError, match=r"left out \d+ interactions; to train on all data, run the model without"):
        train_all(timed / "results" / "toy" / "VBPR" / "2024")
    assert record.split_details["unknown_users"] == 1
    assert run.main(words) == 2
    assert "results of two kinds of split cannot share a table" in capsys.readouterr().err


def test_cold_items_in_the_api(timed: Path) -> None:
    dataset = load_dataset("toy", split="cold-items:valid_share=0.2,test_share=0.2")
    settings = {"epochs": 2, "batch_size": 64}
    with pytest.raises(ModelError, match=r"--split cold-items ranks items without training .* LightGCN cannot score"):
        run_models(["LightGCN"], dataset, settings=settings)
    (made,) = run_models(["VBPR"], dataset, settings=settings).runs
    assert made.result.split_details is not None
    assert made.result.split_details["test_items"] == 8
