"""The sign of an unknown number of runs side by side; the forms are in `test_timing_table.py`."""

from __future__ import annotations

from hellm_recbole.report.timing_rendering import list_timing_lines
from hellm_recbole.report.timing_table import RunTimes, TimingRow, TimingTable


def test_several_numbers_and_an_unknown_one_are_shown() -> None:
    times = RunTimes(None, None, None, None, None)
    table = TimingTable((TimingRow("BPR", 3, (1, 4), (None, 2), times),), times, ())
    assert list_timing_lines(table)[0] == ["BPR", "", "", "", "", "", "0.0 s", "", "3", "1+4", "?+2"]
