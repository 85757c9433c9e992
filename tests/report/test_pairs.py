"""Pairs of rows: wins, ties and losses, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.report.finished_rows import find_finished_rows
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.pairs import compare_pairs
from hellm_recbole.report.settings import read_report_settings
from hellm_recbole.report.tables import build_table
from tests.toy_records import add_run


def compare(folder: Path) -> dict[str, Any]:
    """Compare the rows of a folder of results at K = 10 and 20."""
    frame, settings = read_frame(folder, "Toy"), read_report_settings()
    rows = find_finished_rows(build_table(frame, "unified", settings), frame)
    return compare_pairs(frame, rows, [10, 20], settings)


def test_seeds_are_averaged_first(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 1, 50, 2])
    add_run(tmp_path, [50, 1, 50, 2], seed=2025)
    add_run(tmp_path, [50, 5, 3, 90], model="SASRec", family="sequential")
    found = compare(tmp_path)
    assert (found["names"], found["metric"]) == (["LightGCN", "SASRec"], "N@20")
    ((pair,), nothing) = found["versus"]
    assert nothing == []
    assert (pair["wins"], pair["ties"], pair["losses"]) == (3, 0, 1)
    assert pair["mean"] == pytest.approx(np.mean([1 / 2, 1 - 1 / np.log2(6), -1 / 2, 1 / np.log2(3)]))
    assert pair["low"] < pair["mean"] < pair["high"]


def test_one_row_has_no_pair(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 2, 3])
    assert compare(tmp_path) == {"names": ["LightGCN"], "metric": "N@20", "versus": []}
