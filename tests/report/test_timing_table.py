"""Where the time went, by hand: two seeds of a trained row, a combined row, a record of before, and a resumed run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.experiments.results import RunResult, read_result
from hellm_recbole.report.groups import group_runs
from hellm_recbole.report.timing_rendering import (
    list_timing_lines,
    render_timings_csv,
    render_timings_markdown,
    render_timings_terminal,
)
from hellm_recbole.report.timing_table import RunTimes, TimingTable, build_timing_table, measure_times
from tests.toy_records import add_run

KNOWN: Any = {"resident_bytes": None, "row_bytes": None, "examples_per_epoch": None, "tokens_per_epoch": None}
CURVE: Any = (
    {"epoch": 1, "losses": {}, "valid": {}, "seconds": 20.0},
    {"epoch": 2, "losses": {}, "valid": {}, "seconds": 30.0},
)


@pytest.fixture
def trained(tmp_path: Path) -> RunResult:
    """Built in 10 s, two epochs of 20 s and 30 s, validated in 5 s, ranked in 4 s, 80 s in all, two runs at once."""
    add_run(tmp_path, [1, 5], model="BPR", seed=1)
    result = read_result(tmp_path / "Toy" / "BPR" / "1" / "record.json")
    costs: Any = {**KNOWN, "jobs": 2, "total_seconds": 80.0, "final_seconds": 4.0}
    return replace(result, train_seconds=60.0, eval_seconds=5.0, curve=CURVE, costs=costs, threads=1)


def test_the_times_of_a_run_are_taken_apart(trained: RunResult) -> None:
    assert measure_times(trained) == RunTimes(10.0, 50.0, 5.0, 4.0, 11.0)
    assert measure_times(trained).total == 80.0
    resumed: Any = {**KNOWN, "jobs": 2, "total_seconds": None, "final_seconds": 4.0}
    assert measure_times(replace(trained, costs=resumed)) == RunTimes(10.0, 50.0, 5.0, 4.0, None)
    assert measure_times(replace(trained, costs=None)) == RunTimes(10.0, 50.0, 5.0, None, None)
    combination: Any = {"rows": ("BPR",), "points": 3}
    combined = replace(trained, combination=combination, train_seconds=6.0, eval_seconds=3.0, curve=())
    assert measure_times(combined) == RunTimes(None, 6.0, None, 3.0, 71.0)


def build(trained: RunResult) -> TimingTable:
    before = replace(trained, model="Pop", seed=1, costs=None, threads=2, curve=(), train_seconds=1.0, eval_seconds=2.0)
    table = build_timing_table(group_runs([trained, replace(trained, seed=2), before]))
    assert table is not None
    return table


def test_seeds_and_rows_are_added_up(trained: RunResult) -> None:
    table = build(trained)
    assert [(row.name, row.n_runs, row.threads, row.jobs) for row in table.rows] == [
        ("BPR", 2, (1,), (2,)),
        ("Pop", 1, (2,), (1,)),
    ]
    assert table.rows[0].times == RunTimes(20.0, 100.0, 10.0, 8.0, 22.0)
    assert table.sums == RunTimes(21.0, 100.0, 12.0, 8.0, 22.0)
    notes = " ".join(table.notes)
    assert "Times of 3 finished runs on Toy, added up." in notes
    assert "Runs were executed side by side" in notes
    assert "1 of 3 runs were resumed, or recorded by an earlier version" in notes
    assert build_timing_table(group_runs([replace(trained, status="failed", reason="x")])) is None


def test_all_forms_have_rows_and_sums(trained: RunResult) -> None:
    table = build(trained)
    assert list_timing_lines(table)[1:] == [
        ["Pop", "1.0 s", "0.0 s", "2.0 s", "", "", "3.0 s", "2%", "1", "2", "1"],
        ["all rows", "21.0 s", "1.7 min", "12.0 s", "8.0 s", "22.0 s", "2.7 min", "100%", "3", "", ""],
    ]
    csv = render_timings_csv(table).splitlines()
    assert csv[0] == (
        "row,build_seconds,train_seconds,valid_seconds,test_seconds,other_seconds,total_seconds,runs,threads,jobs"
    )
    assert csv[1:] == [
        "BPR,20.0,100.0,10.0,8.0,22.0,160.0,2,1,2",
        "Pop,1.0,0,2.0,,,3.0,1,2,1",
        "all rows,21.0,100.0,12.0,8.0,22.0,163.0,3,,",
    ]
    assert "| all rows |" in " ".join(render_timings_markdown(table).split())
    shown = render_timings_terminal(table, 100)
    assert "all rows" in shown
    assert "Share" in shown
