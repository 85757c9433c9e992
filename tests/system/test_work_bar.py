from __future__ import annotations

import time

import pytest

from hellm_recbole.system.work_bar import BYTES, WorkBar
from tests.terminal import open_terminal, read_screen


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the time by one that passes only in `time.sleep`."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


def work(bar: WorkBar, n_parts: int, amount: int) -> None:
    with bar:
        for _ in range(n_parts):
            time.sleep(10.0)
            bar.update(amount)


def test_without_a_terminal_there_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    work(WorkBar("encoding", 5_000, "texts"), 5, 1_000)
    assert capsys.readouterr().err.splitlines() == [
        "encoding: 2,000 of 5,000 texts, 100 texts/s, 30 s left",
        "encoding: 4,000 of 5,000 texts, 100 texts/s, 10 s left",
    ]


def test_what_was_done_before_does_not_count_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    work(WorkBar("pictures", 100, "items", completed=60), 2, 10)
    assert capsys.readouterr().err == "pictures: 80 of 100 items, 1 items/s, 20 s left\n"


def test_bytes_are_shown_as_megabytes_and_an_unknown_total_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    bar = WorkBar("a.gz", None, BYTES)
    work(bar, 2, 3_200_000)
    assert capsys.readouterr().err == "a.gz: 6.4 MB, 0.3 MB/s\n"
    assert bar.completed == 6_400_000


def test_nothing_is_printed_if_it_is_not_to_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    work(WorkBar("encoding", 5, "texts", shown=False), 5, 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ("80", "encoding ━━━━━━━━━━━━━━━━━━━━━━━━ 1,000 of 1,000 texts, 50 texts/s"),
        ("50", "encoding ━━━━━━━━ 1,000 of 1,000 texts, 50 texts/s"),
        ("30", "encoding 1,000 of 1,000 texts"),
    ],
)
def test_a_terminal_shows_a_bar_that_fits(monkeypatch: pytest.MonkeyPatch, columns: str, line: str) -> None:
    terminal = open_terminal(monkeypatch, columns)
    work(WorkBar("encoding", 1_000, "texts"), 2, 500)
    assert [part.strip() for part in read_screen(terminal.getvalue())] == [line]
