"""Finished rows: which rows they are, their order and their names."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.report.finished_rows import find_finished_rows
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.settings import read_report_settings
from hellm_recbole.report.tables import build_table
from tests.report.toy_tables import build_ranks, write_toy_runs
from tests.toy_records import add_run


def list_rows(folder: Path) -> list[tuple[str, int, list[int]]]:
    """List name, index and seeds of the finished rows."""
    frame = read_frame(folder, "Toy")
    rows = find_finished_rows(build_table(frame, "unified", read_report_settings()), frame)
    return [(row.name, row.index, [run.seed for run in row.runs]) for row in rows]


def test_rows_without_a_successful_run_are_left_out(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    expected = [("LightGCN", 0, [2024, 2025]), ("VBPR", 1, [2024, 2025]), ("SAS_Rec", 2, [2024])]
    assert list_rows(tmp_path) == expected


def test_the_name_has_the_preset_if_there_are_several(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, build_ranks(20, 1), seed=2025, preset="quick")
    assert list_rows(tmp_path) == [("LightGCN (quick)", 0, [2025]), ("LightGCN (paper)", 1, [2024])]


def test_rows_are_numbered_within_their_family(tmp_path: Path) -> None:
    frame = read_frame(write_toy_runs(tmp_path), "Toy")
    rows = find_finished_rows(build_table(frame, "unified", read_report_settings()), frame)
    assert [(row.name, row.family, row.shade) for row in rows] == [
        ("LightGCN", "collaborative", 0),
        ("VBPR", "multimodal", 0),
        ("SAS_Rec", "sequential", 0),
    ]
    add_run(tmp_path, build_ranks(1, 1), model="BPR")
    frame = read_frame(tmp_path, "Toy")
    rows = find_finished_rows(build_table(frame, "unified", read_report_settings()), frame)
    assert [(row.name, row.index, row.shade) for row in rows][:3] == [("LightGCN", 0, 0), ("BPR", 1, 1), ("VBPR", 2, 0)]
