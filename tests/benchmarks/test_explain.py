"""The command explain: where it looks, and one sentence for each wrong input."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.benchmarks import cli, explain
from tests.report.toy_tables import by_model, make_table, write_toy_runs
from tests.toy_records import add_run


@pytest.fixture
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Ids of the rows in `results/` of the current folder."""
    monkeypatch.chdir(tmp_path)
    rows = by_model(make_table(write_toy_runs(tmp_path / "results")))
    return {model: row.number_id for model, row in rows.items() if row.number_id is not None}


def test_one_id_and_two_ids(ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert explain.main([ids["VBPR"]]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{ids['VBPR']}: VBPR, seeds 2024, 2025 on Toy, preset paper (results/Toy/VBPR)\n")
    assert cli.main(["explain", ids["VBPR"], ids["SAS_Rec"]]) == 0
    shown = capsys.readouterr().out
    assert "model: VBPR of hellm_recbole | SAS_Rec of hellm_recbole" in shown
    assert "seed: 2024, 2025 | 2024" in shown


def test_published_runs_and_other_folders(
    ids: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(tmp_path / "results" / "published", [1, 2], model="VBPR", seed=2024)
    add_run(tmp_path / "results" / "published", [1, 2], model="VBPR", seed=2025)
    assert explain.main([ids["VBPR"]]) == 0
    assert "found 2 times, the same number: results/Toy/VBPR, results/published/Toy/VBPR" in capsys.readouterr().out
    assert explain.main([ids["VBPR"], "--from", str(tmp_path / "results" / "published")]) == 0
    assert "found" not in capsys.readouterr().out


def fail(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert explain.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_wrong_ids_give_one_sentence(ids: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'VBPR' is not the id of a number" in fail(capsys, "VBPR")
    assert "no number in results and results/published has the id LOO-000000" in fail(capsys, "LOO-000000")
    assert "no number in missing has the id" in fail(capsys, ids["VBPR"], "--from", "missing")
    add_run(tmp_path / "results", [1, 2], dataset="Shop", split_hash="f" * 64)
    other = by_model(make_table(tmp_path / "results", dataset="Shop"))["LightGCN"].number_id
    assert "one of Shop; name two numbers of one dataset" in fail(capsys, ids["VBPR"], str(other))
