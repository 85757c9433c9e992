from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from hellm_recbole.benchmarks import recommend, run, train_all
from hellm_recbole.data.dataset import Dataset
from tests.toy import write_prepared

RUN = "results/toy/SASRec/2024"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset) -> Path:
    """A working folder with a finished run of SASRec."""
    folder = tmp_path_factory.mktemp("shop")
    write_prepared(folder / "dataset" / "toy", toy_dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["--set", "epochs=2", "--set", "batch_size=64", "--threads", "1", "--export", "test-lists"]
        assert run.main(["--models", "SASRec", "--dataset", "toy", *words]) == 0
    return folder


@pytest.fixture(autouse=True)
def work_in_shop(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)


def fail(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert recommend.main([*words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


def test_the_lists_of_the_test_part_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    words = [RUN, "--history", "test", "--k", "20", "--threads", "1", "--device", "cpu"]
    assert recommend.main([*words, "--output", "lists/all.parquet"]) == 0
    assert capsys.readouterr().out == "60 lists of SASRec on toy, seed 2024 written to lists/all.parquet\n"
    exported = pq.read_table(f"{RUN}/test-lists.parquet").to_pandas().drop(columns="is_target")
    written = pd.read_parquet("lists/all.parquet")
    assert written["score"].tolist() == exported["score"].tolist()
    assert written["item_id"].tolist() == exported["item_id"].tolist()


def test_new_histories_are_read_and_lists_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("new.csv").write_text("user_id,item_id,timestamp\nme,i4,2\nme,i3,1\nyou,i30,1\n")
    Path("some.txt").write_text("i5\ni6\ni7\n")
    assert recommend.main([RUN, "--histories", "new.csv", "--candidates", "some.txt", "--k", "2"]) == 0
    lists = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert lists["user_id"].tolist() == ["me", "me", "you", "you"]
    assert {*lists["item_id"]} <= {"i5", "i6", "i7"}


def test_a_model_of_all_data_recommends(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_all.main([RUN, "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "SASRec on all data of toy, seed 2024: written to " in shown
    assert "results/all-data/toy/SASRec/2024; it is not evaluated" in shown
    Path("users.txt").write_text("u1\nu2\n")
    words = ["results/all-data/toy/SASRec/2024", "--users", "users.txt", "--k", "3", "--output", "two.jsonl"]
    assert recommend.main(words) == 0
    assert "note: SASRec was trained on all data and has not been evaluated" in capsys.readouterr().err
    assert len(Path("two.jsonl").read_text().splitlines()) == 6


def test_wrong_input_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.txt").write_text("i1 nothing\n")
    Path("two.txt").write_text("u1\n")
    assert "is not the folder of a finished run" in fail(capsys, "results/toy/SASRek/2024")
    assert "history '1': toy has no items 'nothing'; leave them out" in fail(capsys, RUN, "--histories", "odd.txt")
    assert "k = 50 is larger than the catalogue of toy, 40 items" in fail(capsys, RUN, "--k", "50")
    assert "the ending must be .csv, .parquet, .jsonl" in fail(capsys, RUN, "--output", "lists.xlsx")
    both = ["--histories", "odd.txt", "--users", "two.txt"]
    assert "--histories and --users contradict each other" in fail(capsys, RUN, *both)
    assert "gone.txt cannot be read" in fail(capsys, RUN, "--users", "gone.txt")
    assert "there is no folder gone; name a folder" in fail(capsys, RUN, "--dataset", "gone")
