"""Run the tests marked `gpu` as a part of `gpu`; each test is a line of the table."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from hellm_recbole.benchmarks.tasks.gpu_table import FAILED, LEFT_OUT, NOT_REACHED, PASSED, STOPPED, Line, Table

ROOT = Path(__file__).resolve().parents[2]
MARK = "pytest.mark.gpu"
NEEDED = ("pytest", "hypothesis")
RESULT = re.compile(r"^(tests/\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b")
SUMMARY = re.compile(r"^(?:FAILED|ERROR) (tests/\S+::.+?) - (.*)")
OUTCOMES = {"PASSED": PASSED, "FAILED": FAILED, "ERROR": FAILED, "SKIPPED": LEFT_OUT}
LOG = "tests.txt"


def run_gpu_tests(table: Table, deadline: float, root: Path = ROOT) -> None:
    """Run the tests marked `gpu` and add a line for each of them to the table.

    Args:
        table: table to add the lines to.
        deadline: when to stop, a value of `time.monotonic`.
        root: folder of the checkout, with `tests/`.
    """
    files = find_test_files(root)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not files or missing:
        reason = f"{missing[0]} is not installed" if missing else "this is no checkout with tests"
        table.add(Line("tests", "all", outcome=LEFT_OUT, note=reason))
        return
    if time.monotonic() >= deadline:
        table.add(Line("tests", "all", outcome=NOT_REACHED, note="the time was over"))
        return
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-p", "no:cacheprovider", "--color=no", *files]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        process.kill()

    timer = threading.Timer(max(deadline - time.monotonic(), 0.0), stop)
    timer.start()
    try:
        n_lines = _add_lines(process, table)
    finally:
        timer.cancel()
        process.kill()
        code = process.wait()
    if stopped.is_set():
        table.add(Line("tests", "the others", outcome=STOPPED, note="the time of this part was over"))
    elif not n_lines:
        table.add(Line("tests", "all", outcome=FAILED, note=f"pytest ended with exit code {code}; see {LOG}"))


def find_test_files(root: Path) -> list[str]:
    """Find the test files that have the mark; collecting all tests would take most of the time."""
    paths = sorted((root / "tests").rglob("test_*.py"))
    return [path.relative_to(root).as_posix() for path in paths if MARK in path.read_text(encoding="utf-8")]


def _add_lines(process: subprocess.Popen[str], table: Table) -> int:
    """Add a line to the table for each test that ends, and one for those that were skipped; return their number."""
    assert process.stdout is not None
    n_lines = n_skipped = 0
    last = time.monotonic()
    with (table.folder / LOG).open("w", encoding="utf-8") as log:
        for text in process.stdout:
            log.write(text)
            log.flush()
            if found := SUMMARY.match(text):
                table.add_note("tests", _shorten(found[1]), found[2].strip())
            elif found := RESULT.match(text):
                seconds, last = time.monotonic() - last, time.monotonic()
                if found[2] == "SKIPPED":
                    n_skipped += 1
                else:
                    table.add(Line("tests", _shorten(found[1]), outcome=OUTCOMES[found[2]], note=f"{seconds:.1f} s"))
                    n_lines += 1
    if n_skipped:
        table.add(Line("tests", f"{n_skipped} tests", outcome=LEFT_OUT, note=f"skipped; {LOG} has the reasons"))
    return n_lines + n_skipped


def _shorten(name: str) -> str:
    """Return the name of a test without the folder of the tests."""
    return name.removeprefix("tests/")
