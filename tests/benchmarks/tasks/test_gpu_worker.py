"""Processes that measure: what they print, and what becomes of the rest when one crashes or takes too long."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import pytest

from hellm_recbole.benchmarks.tasks import gpu_worker
from hellm_recbole.benchmarks.tasks.gpu_bench import Request
from hellm_recbole.benchmarks.tasks.gpu_table import Line, Table
from hellm_recbole.benchmarks.tasks.gpu_worker import Limits, measure_in_process

# A process that measures each row, except that row B does what the first argument says.
PROCESS = """
import json, os, sys, time
cases = json.load(open(sys.argv[2]))["cases"]
if sys.argv[1] == "refuse":
    sys.exit("error: nothing works")
print("a library prints this", flush=True)
for number, (part, row) in enumerate(cases):
    print(json.dumps(["begin", number]), flush=True)
    if row == "B":
        if sys.argv[1] == "crash":
            sys.stderr.write("error: the device is lost\\n")
            os._exit(9)
        if sys.argv[1] == "hang":
            time.sleep(60)
    print(json.dumps(["line", {"part": part, "row": row, "step_ms": 1.5}]), flush=True)
    print(json.dumps(["end", number]), flush=True)
"""


def measure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str, seconds: float = 60.0, row_s: float = 60.0
) -> list[tuple[str, str, str]]:
    monkeypatch.setattr(gpu_worker, "COMMAND", (sys.executable, "-c", PROCESS, fault))
    request = Request(
        device="cpu",
        tiny=True,
        branches=1,
        llm="random",
        steps=1,
        users=1,
        folder=folder,
        cases=[("times", "A"), ("times", "B"), ("times", "C")],
    )
    measure_in_process(request, Table(folder, {}), Limits(time.monotonic() + seconds, row_s))
    with (folder / "table.csv").open(encoding="utf-8") as file:
        return [(line["row"], line["outcome"], line["note"]) for line in csv.DictReader(file)]


def test_each_row_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(tmp_path, monkeypatch, "")
    assert [line[:2] for line in found] == [("A", "measured"), ("B", "measured"), ("C", "measured")]


def test_after_a_crash_another_process_measures_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(tmp_path, monkeypatch, "crash")
    assert [line[:2] for line in found] == [("A", "measured"), ("B", "failed"), ("C", "measured")]
    assert found[1][2] == "the process ended with exit code 9 (error: the device is lost)"


def test_a_row_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(tmp_path, monkeypatch, "hang", row_s=1.0)
    assert [line[:2] for line in found] == [("A", "measured"), ("B", "stopped"), ("C", "measured")]
    assert found[1][2] == "it took longer than 1 s"


def test_the_rest_is_named_when_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(tmp_path, monkeypatch, "hang", seconds=8.0)
    assert [line[:2] for line in found] == [("A", "measured"), ("B", "stopped"), ("C", "not reached")]


def test_a_process_that_never_begins_is_not_started_for_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure(tmp_path, monkeypatch, "refuse")
    assert [line[:2] for line in found] == [
        ("all", "failed"),
        ("A", "not reached"),
        ("B", "not reached"),
        ("C", "not reached"),
    ]
    assert "error: nothing works" in found[0][2]


def test_the_table_is_complete_after_each_line(tmp_path: Path) -> None:
    table = Table(tmp_path, {"device": "none"})
    for number, row in enumerate(("A", "B|C"), start=1):
        table.add(Line("times", row, "TF32", ratio=1.25, loss=0.5))
        assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + number
        text = (tmp_path / "table.md").read_text()
        assert text.startswith("# What was measured on this device\n\n- device: none\n")
        assert text.count("| TF32") == number
    assert "B\\|C" in text
    table.add_note("times", "A", "why")
    assert (tmp_path / "table.csv").read_text().count(",why") == 1
