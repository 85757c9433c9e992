"""Run results with harmful texts: no control character reaches a terminal, and no formula reaches a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import report
from tests.toy_records import add_run, toy_record

ESCAPE = "\x1b[2J\x1b]0;owned\x07\x9b31m"


@pytest.fixture
def harmful_results(tmp_path: Path) -> Path:
    settings = {**toy_record().settings, "emb_dim": {"value": 64, "origin": f"--set{ESCAPE} emb_dim=64"}}
    add_run(tmp_path, [1, 5, 900, 3], model="LightGCN")
    add_run(tmp_path, [1, 5, 900, 4], model="=HYPERLINK(1)", preset=f"+pa{ESCAPE}per", settings=settings)
    add_run(tmp_path, None, model="@SUM(A1)", reason=f"-1{ESCAPE}+cmd")
    return tmp_path


def test_no_control_character_reaches_the_terminal(harmful_results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--output", str(harmful_results)]) == 0
    captured = capsys.readouterr()
    for text in (captured.out, captured.err, (harmful_results / "Toy" / "table.md").read_text()):
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "\x07" not in text
    assert "=HYPERLINK(1)" in captured.out


def test_cells_that_look_like_formulas_are_texts(harmful_results: Path) -> None:
    assert report.main(["--output", str(harmful_results)]) == 0
    for name in ("table.csv", "slices.csv"):
        with (harmful_results / "Toy" / name).open() as stream:
            lines = list(csv.DictReader(stream))
        cells = [cell for line in lines for cell in line.values()]
        for cell in cells:
            if cell[:1] in ("=", "+", "@", "-"):
                float(cell)  # numbers stay numbers
            assert "\x1b" not in cell
        assert "'=HYPERLINK(1)" in cells
        assert "'+paper" in cells
    with (harmful_results / "Toy" / "table.csv").open() as stream:
        problems = {line["model"]: line["problem"] for line in csv.DictReader(stream)}
    assert problems["'@SUM(A1)"] == "failed: -1+cmd"


def test_an_error_message_has_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = add_run(tmp_path, [1, 2], model="LightGCN")
    path.write_text(path.read_text().replace('"LightGCN"', '"Light\\u001b[2JGCN"'))
    assert report.main(["--output", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: run result ")
    assert "\x1b" not in err
