"""The commands sampled-ranking and native-tasks on runs that another command has made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hellm_recbole.benchmarks import native_tasks, run, sampled_ranking
from hellm_recbole.data.dataset import Dataset
from tests.toy import write_prepared

DATASET = ["--dataset", "toy", "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset) -> Path:
    """A working folder with finished runs of Pop and LightGCN, the latter with two seeds."""
    folder = tmp_path_factory.mktemp("shop")
    write_prepared(folder / "dataset" / "toy", toy_dataset, 1 + np.arange(toy_dataset.n_interactions) * 7 % 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["--set", "epochs=2", "--set", "batch_size=64", "--seeds", "1,2"]
        assert run.main(["--models", "Pop,LightGCN", *DATASET, *words]) == 0
    return folder


@pytest.fixture(autouse=True)
def work_in_shop(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)


def list_files(folder: Path) -> dict[str, bytes]:
    return {path.as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_tables_and_files_are_written_and_nothing_else_changes(capsys: pytest.CaptureFixture[str]) -> None:
    before = list_files(Path("results"))
    words = ["--candidates", "uniform:20,popularity:10", "--cutoffs", "1,5"]
    assert sampled_ranking.main([*DATASET, *words]) == 0
    out = capsys.readouterr().out
    after = list_files(Path("results"))
    assert {path: after[path] for path in before} == before
    names = ("sampled_uniform_20_seed2024", "sampled_popularity_10_seed2024")
    runs = [f"results/toy/{model}/{seed}" for model in ("LightGCN", "Pop") for seed in (1, 2)]
    added = [f"{folder}/{name}.npz" for folder in runs for name in names]
    added += [f"results/toy/table_{name}.{ending}" for name in names for ending in ("md", "csv")]
    assert sorted(after.keys() - before.keys()) == sorted(added)
    for name in names:
        assert Path(f"results/toy/table_{name}.md").read_text().startswith("| Group")
        assert f"written to results/toy/table_{name}.md" in out
    assert "| Group" not in out  # the terminal gets columns, not Markdown
    table = pd.read_csv(f"results/toy/table_{names[0]}.csv")
    main = pd.read_csv("results/toy/table.csv").set_index("model")
    assert table["model"].tolist()[:2] in (["Pop", "LightGCN"], ["LightGCN", "Pop"])
    for row in table.itertuples():
        assert row.n_seeds == 2
    full = table.set_index("model")["full_R@5"]
    assert full.to_dict() == pytest.approx(main["R@5"].to_dict())
    assert "The scores give the saved full ranks of every row." in out

    assert sampled_ranking.main([*DATASET, *words, "--models", "Pop"]) == 0  # the table keeps the other row
    assert list_files(Path("results")) == after
    assert sampled_ranking.main([*DATASET, "--candidates", "uniform:20", "--draw-seed", "7", "--cutoffs", "1"]) == 0
    other = pd.read_csv("results/toy/table_sampled_uniform_20_seed7.csv")
    assert other["negatives_sha256"][0] != table["negatives_sha256"][0]


def test_native_tasks_write_their_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert native_tasks.main([*DATASET, "--held-out", "both"]) == 0
    out = capsys.readouterr().out
    assert Path("results/toy/table_native_both.md").read_text().startswith("| Group")
    assert "HR@1 of 20" in out
    assert "| Group" not in out  # the terminal gets columns, not Markdown
    table = pd.read_csv("results/toy/table_native_both.csv").set_index("model")
    assert table.loc["Pop", "task"] == "adaptation"
    stored = np.load("results/toy/Pop/1/native_auc_both.npz")
    liked = stored["rating"] > 3
    pairs = stored["score"][liked][:, None] - stored["score"][~liked][None]
    assert table.loc["Pop", "auc"] == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())
    ranks = np.load("results/toy/Pop/1/sampled_uniform_19_seed2024.npz")["rank"]
    assert table.loc["Pop", "HR@1 of 20"] == pytest.approx((ranks == 1).mean())
    assert native_tasks.main([*DATASET, "--task", "hr20", "--models", "LightGCN"]) == 0
    assert "AUC (CoLLM)" not in Path("results/toy/table_native_test.md").read_text()


def fail(capsys: pytest.CaptureFixture[str], command: object, *words: str) -> str:
    capsys.readouterr()
    assert command.main([*DATASET, *words]) == 2  # type: ignore[attr-defined]
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_wrong_input_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no finished run of SASRec; it has LightGCN, Pop" in fail(capsys, sampled_ranking, "--models", "SASRec")
    assert "K = 20 makes every target a hit among 10 candidates" in fail(
        capsys, sampled_ranking, "--candidates", "uniform:10"
    )
    assert "candidates cannot be drawn: a user has only" in fail(capsys, sampled_ranking, "--candidates", "uniform:39")
    assert "is not understood; write uniform:100" in fail(capsys, sampled_ranking, "--candidates", "all")
    assert "no finished run with weights in gone/toy" in fail(capsys, native_tasks, "--output", "gone")
    assert "--task 'x' is unknown" in fail(capsys, native_tasks, "--task", "x")


def test_a_run_that_cannot_be_loaded_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = Path("results/toy/LightGCN/2/checkpoint")
    checkpoint.rename("moved")
    try:
        assert native_tasks.main([*DATASET, "--task", "auc"]) == 1
    finally:
        Path("moved").rename(checkpoint)
    shown = capsys.readouterr()
    assert "LightGCN, seed 2: left out: " in shown.err
    assert "LightGCN, seed 1: scored" in shown.out
    table = pd.read_csv("results/toy/table_native_test.csv").set_index("model")
    assert table.loc["LightGCN", "n_seeds"] >= 1
