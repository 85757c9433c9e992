"""The command sensitivity on the toy dataset."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks import report, run, sensitivity
from hellm_recbole.data.dataset import Dataset
from tests.toy import write_prepared

QUICK = ["--set", "epochs=2", "--set", "batch_size=64", "--threads", "1"]


def read_rows(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    with (folder / "sensitivity.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "N@10"]
    return {(row["model"], row["rule"], row["choice"]): row for row in rows}


def test_mask_and_ties_of_runs_that_the_command_makes(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sensitivity.main(["--models", "Pop,LightGCN", "--dataset", "toy", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "usual rules" in out
    assert "Pop: " in out
    assert "of the test targets have the score of another candidate" in out
    folder = workplace / "results" / "toy"
    rows = read_rows(folder)
    rules = [("mask", "train"), ("mask", "none"), ("ties", "optimistic"), ("ties", "random")]
    assert list(rows) == [(model, *rule) for model in ("LightGCN", "Pop") for rule in rules]
    optimistic, random = (float(rows["Pop", "ties", rule]["change"]) for rule in ("optimistic", "random"))
    assert optimistic > random > 0  # Pop's counts have many ties
    assert float(rows["Pop", "mask", "none"]["change"]) <= 0  # more candidates cannot help
    # The table under the same mask has the same number.
    assert report.main(["--dataset", "toy", "--mask", "none"]) == 0
    with (folder / "table-mask-none.csv").open(newline="") as file:
        table = {row["model"]: row for row in csv.DictReader(file)}
    assert float(table["Pop"]["N@10"]) == pytest.approx(float(rows["Pop", "mask", "none"]["value"]))
    out = " ".join(capsys.readouterr().out.split())  # the terminal breaks lines
    assert "validation item is in the input of no row, and it is a candidate." in out
    # The finished runs are only read with --from, and their weights are not needed.
    assert sensitivity.main([*"--models Pop --dataset toy --from results --output other --cutoffs 3".split()]) == 0
    assert "| mask: none  |" in (workplace / "other" / "toy" / "sensitivity.md").read_text()
    assert "the weights of a run, so it is not measured with --from" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_random_orders_of_ties_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert toy_dataset.time is not None
    tied = replace(toy_dataset, time=np.floor(toy_dataset.time / 3), time_known=True)
    write_prepared(tmp_path / "dataset" / "toy", tied)
    words = ["--models", "Pop", "--dataset", "toy", "--shuffle-ties", "2", *QUICK]
    assert sensitivity.main(words) == 0
    row = read_rows(tmp_path / "results" / "toy")["Pop", "order of ties in time", "2 random"]
    assert float(row["sd"]) > 0
    means = []
    for seed in (1, 2):
        assert report.main(["--dataset", f"toy-ties{seed}"]) == 0
        with (tmp_path / "results" / f"toy-ties{seed}" / "table.csv").open(newline="") as file:
            means.append(float(next(csv.DictReader(file))["N@10"]))
    assert float(row["value"]) == pytest.approx(np.mean(means))
    assert float(row["sd"]) == pytest.approx(np.std(means, ddof=1))
    assert float(row["change"]) == pytest.approx(np.mean(means) - float(row["usual"]))
    assert "2 random orders (seeds 1 to 2)" in " ".join(capsys.readouterr().out.split())
    write_prepared_again(tmp_path, tied)
    assert sensitivity.main(words) == 2
    assert "toy-ties1 was made from another state of" in capsys.readouterr().err


def write_prepared_again(folder: Path, dataset: Dataset) -> None:
    """Replace the dataset by one with another filter, so that its manifest is another one."""
    (folder / "dataset" / "toy").rename(folder / "old")
    write_prepared(folder / "dataset" / "toy", replace(dataset, k_core=1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "name the models to measure with --models"),
        ("--models Pop --shuffle-ties 2", "dataset toy has no times, so it has no ties to shuffle"),
        ("--models Pop --shuffle-ties 2 --from results", "--shuffle-ties trains models again, but --from only reads"),
        ("--models Pop --shuffle-ties -1", "must be from 0 to 100"),
        ("--models Pop --from nowhere", "no record of dataset toy in nowhere"),
    ],
)
def test_wrong_requests_are_one_sentence(
    workplace: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sensitivity.main(["--dataset", "toy", *words.split()]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("error: ") == 1


def test_a_row_that_has_not_finished_is_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--dataset", "toy", "--models", "Pop", *QUICK]) == 0
    words = "--models Pop,EASE --dataset toy --from results --output other".split()
    assert sensitivity.main(words) == 2
    assert "toy has no finished run of EASE with the seeds 2024" in capsys.readouterr().err
