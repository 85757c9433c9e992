"""Cells of a table: stars, positions and p-values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.evaluation import metrics
from hellm_recbole.evaluation.significance import correct_holm
from hellm_recbole.report.rendering import render_markdown
from hellm_recbole.report.settings import read_report_settings
from tests.evaluation.test_significance import paired_bootstrap
from tests.report.toy_tables import build_ranks, by_model, make_table, write_toy_runs
from tests.toy_records import add_run, toy_ranks


def test_equal_means_have_the_same_position(tmp_path: Path) -> None:
    table = by_model(make_table(write_toy_runs(tmp_path)))
    positions = {
        name: [table[name].cells[metric].position for metric in ("R@10", "N@10")] for name in ("LightGCN", "VBPR")
    }
    assert positions == {"LightGCN": [2, 1], "VBPR": [1, 1]}
    assert table["SAS_Rec"].cells["R@10"].position == 0
    # Equal means are never significant, whichever row comes first.
    assert not any(table[name].cells["N@10"].significant for name in positions)


def test_p_values_equal_those_of_separate_tests(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    ranks = {name: generator.geometric(p, 300) for name, p in (("A", 0.02), ("B", 0.04), ("C", 0.042))}
    for name, rank in ranks.items():
        add_run(tmp_path, rank, model=name)
    table = by_model(make_table(tmp_path))
    settings = read_report_settings()
    values = {n: metrics.compute_per_user(toy_ranks(r).user, toy_ranks(r).rank, [10, 20])[1] for n, r in ranks.items()}
    expected = []
    for metric in ("R@10", "N@10", "R@20", "N@20"):
        best = max(ranks, key=lambda name: values[name][metric].mean())
        for name in sorted(ranks.keys() - {best}):
            p = paired_bootstrap(
                values[best][metric], values[name][metric], settings.n_resamples, settings.bootstrap_seed
            )
            expected.append((metric, best, name, p))
    for (metric, best, name, _), p in zip(expected, correct_holm(np.array([e[3] for e in expected])), strict=True):
        assert table[name].cells[metric].p == pytest.approx(p)
        assert not table[name].cells[metric].significant
        rival = max(ranks.keys() - {best}, key=lambda n: values[n][metric].mean())
        assert table[best].cells[metric].p == table[rival].cells[metric].p
    assert table["A"].cells["R@20"].p < 0.05  # the test data has a significant difference
    assert all(cell.low < cell.mean < cell.high for cell in table["B"].cells.values())


def test_a_clear_win_is_marked_and_a_close_one_is_not(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(38, 1), model="Winner")
    add_run(tmp_path, build_ranks(5, 1), model="Other")
    assert all(cell.significant for cell in by_model(make_table(tmp_path))["Winner"].cells.values())
    add_run(tmp_path, build_ranks(37, 1), model="Close")
    assert not any(cell.significant for row in make_table(tmp_path).rows for cell in row.cells.values())


def test_no_star_between_rows_with_different_numbers_of_seeds(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(38, 1), model="Winner")
    add_run(tmp_path, build_ranks(5, 1), model="Other")
    add_run(tmp_path, build_ranks(38, 1), model="Winner", seed=2025)
    table = make_table(tmp_path)
    assert not any(cell.significant for row in table.rows for cell in row.cells.values())
    assert "Numbers of seeds differ (" in table.notes[-1]
    assert "so no star stands between a row and a rival with another number of seeds" in render_markdown(table)
    add_run(tmp_path, build_ranks(5, 1), model="Other", seed=2025)
    add_run(tmp_path, build_ranks(3, 1), model="Third")  # neither the best row nor the best other row
    table = make_table(tmp_path)
    assert all(cell.significant for cell in by_model(table)["Winner"].cells.values())
    assert "Numbers of seeds differ (Third 1, all others 2)" in table.notes[-1]


def test_a_single_row_has_no_p_value(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(38, 1))
    cell = make_table(tmp_path).rows[0].cells["R@10"]
    assert (cell.p, cell.significant, cell.position) == (None, False, 1)
