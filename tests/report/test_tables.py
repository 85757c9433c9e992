"""Comparison tables: numbers by hand, order of the rows, and footnotes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.errors import SettingsError
from hellm_recbole.report.rendering import render_latex, render_markdown
from hellm_recbole.report.terminal import render_terminal
from tests.report.toy_tables import build_ranks, by_model, make_table, write_toy_runs
from tests.toy_records import add_run, rewrite


def test_all_numbers_by_hand(tmp_path: Path) -> None:
    rows = by_model(make_table(write_toy_runs(tmp_path)))
    cell = rows["LightGCN"].cells["R@10"]
    assert (cell.mean, cell.sd) == (3 / 8, pytest.approx(1 / (4 * 2**0.5)))
    assert rows["VBPR"].cells["N@20"].mean == 3 / 8
    assert rows["VBPR"].cells["N@20"].sd == 0
    assert rows["SAS_Rec"].cells["N@20"].sd is None
    assert rows["SAS_Rec"].cells["N@20"].mean == pytest.approx(1 / 20)
    assert rows["SAS_Rec"].cells["R@10"].mean == 0
    assert rows["LightGCN"].train_seconds == 120
    assert rows["SAS_Rec"].train_seconds is None
    assert rows["LightGCN"].seeds == (2024, 2025)


def test_numbers_come_from_the_ranks_and_agree_with_the_records(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = add_run(tmp_path, generator.integers(1, 40, 100))
    recorded = json.loads(path.read_text())["metrics"]["test"]
    cells = make_table(tmp_path).rows[0].cells
    assert {name: cell.mean for name, cell in cells.items()} == pytest.approx(recorded, abs=1e-15)

    rewrite(path, lambda content: content["metrics"].update(test={"R@10": 0.99}))
    assert make_table(tmp_path).rows[0].cells == cells


def test_other_cutoffs_from_the_same_ranks(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    table = make_table(tmp_path, cutoffs=[50, 1])
    assert table.metrics == ("R@1", "N@1", "R@50", "N@50")
    assert by_model(table)["VBPR"].cells["R@1"].mean == 0
    assert by_model(table)["LightGCN"].cells["R@1"].mean == 3 / 8


def test_groups_are_in_order_and_the_best_row_of_a_group_is_first(tmp_path: Path) -> None:
    for index, family in enumerate(("llm", "sequential", "multimodal", "collaborative")):
        add_run(tmp_path, build_ranks(5 + index, 1), model=f"Low{index}", family=family)
        add_run(tmp_path, build_ranks(20 + index, 12), model=f"High{index}", family=family)
    table = make_table(tmp_path)
    assert [row.family for row in table.rows[::2]] == ["collaborative", "multimodal", "sequential", "llm"]
    by_r10 = make_table(tmp_path, metric="R@10")
    assert [row.model for row in by_r10.rows[:2]] == ["Low3", "High3"]
    by_r20 = make_table(tmp_path, metric="R@20")
    assert [row.model for row in by_r20.rows[:2]] == ["High3", "Low3"]


@pytest.mark.parametrize("metric", ["MRX", "HR", "Gini@10", "N@", "N@0", "n@20", "R@10 "])
def test_an_unknown_metric_is_refused(tmp_path: Path, metric: str) -> None:
    write_toy_runs(tmp_path)
    with pytest.raises(SettingsError, match=r"neither R@K nor N@K; choose a metric such as N@20"):
        make_table(tmp_path, metric=metric)


def test_a_footnote_about_every_row_has_no_letter(tmp_path: Path) -> None:
    given = {"epochs": {"value": 3, "origin": "--epochs=3"}}
    for model in ("VBPR", "BM3"):
        add_run(tmp_path, build_ranks(20, 1), model=model, settings=given)
    table = make_table(tmp_path)
    assert [row.marks for row in table.rows] == [(), ()]
    assert "- Every row: run with --epochs=3." in render_markdown(table)
    add_run(tmp_path, build_ranks(20, 1), model="Pop")
    assert sorted(len(row.marks) for row in make_table(tmp_path).rows) == [0, 1, 1]


def test_each_preset_has_its_own_row(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, build_ranks(20, 1), seed=2025, preset="quick")
    table = make_table(tmp_path)
    assert [(row.preset, row.cells["R@10"].mean) for row in table.rows] == [("quick", 1 / 2), ("paper", 1 / 4)]
    for text in (render_markdown(table), render_latex(table), render_terminal(table, 80)):
        assert "Preset" in text
        assert "quick" in text


@pytest.mark.slow
def test_speed_at_the_size_of_beauty(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for model in range(10):
        add_run(tmp_path, generator.geometric(1 / (100 + 10 * model), 22_363), model=f"M{model}", cutoffs=(5, 10, 20))
    start = time.process_time()
    make_table(tmp_path)
    assert time.process_time() - start < 20  # about 4 s; the margin is for a busy machine
