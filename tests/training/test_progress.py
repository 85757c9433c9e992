from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from hellm_recbole.training.checkpoint import Progress
from hellm_recbole.training.progress import ConsoleView, find_early_end
from tests.terminal import open_terminal, read_screen


def build_progress(epoch: int, valid: dict[str, float] | None) -> Progress:
    entry: dict[str, Any] = {"epoch": epoch, "losses": {"bpr": 0.5}, "valid": valid, "seconds": 1.0}
    best = (epoch, valid["N@20"]) if valid else (0, 0.0)
    return Progress("run", epoch, *best, stale=0, stopped=False, train_seconds=1.0, eval_seconds=1.0, curve=(entry,))


def test_without_a_terminal_long_epochs_print_their_current_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # some test runners set it
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    view = ConsoleView("X on Y", 5, 0, "N@20", [])
    for after, step in ((59.0, 10), (61.0, 20), (100.0, 30), (122.0, 40)):
        now = 1000.0 + after
        view.step(1, step, 80, {"bpr": 0.25})
    now = 1244.0
    view.epoch(build_progress(1, None))
    for after, step in ((20.0, 20), (70.0, 50)):
        now = 1244.0 + after
        view.step(2, step, 80, {"bpr": 0.25})
    now = 1344.0
    view.epoch(build_progress(2, {"N@20": 0.125}))
    view.close()
    assert capsys.readouterr().err.splitlines() == [
        "X on Y: epoch 1 of at most 5, step 20/80, 3 min left of the epoch, bpr 0.2500",
        "X on Y: epoch 1 of at most 5, step 40/80, 2 min left of the epoch, bpr 0.2500",
        "X on Y: epoch 1 of at most 5, at most 16 min left, bpr 0.5000",
        "X on Y: epoch 2 of at most 5, step 50/80, 42 s left of the epoch, bpr 0.2500",
        "X on Y: epoch 2 of at most 5, N@20 0.1250, best 0.1250 at epoch 2, at most 9 min left, bpr 0.5000",
    ]


def test_short_epochs_print_no_lines_for_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    view = ConsoleView("X on Y", 9, 0, "N@20", [])
    for epoch in range(1, 4):
        for step in range(1, 11):
            now += 3.0
            view.step(epoch, step, 10, {"bpr": 0.25})
        view.epoch(build_progress(epoch, {"N@20": 0.125}))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert not any("step" in line for line in lines)


def train_epochs(view: ConsoleView, n_epochs: int, then_steps: int = 0) -> None:
    """Train epochs of ten steps and half a minute, of which the second one is the best, and some steps of the next."""
    for epoch in range(1, n_epochs + 2):
        for step in range(1, (10 if epoch <= n_epochs else then_steps) + 1):
            time.sleep(3.0)
            view.step(epoch, step, 10, {"bpr": 0.25, "reg": 0.125})
        if epoch <= n_epochs:
            best = min(epoch, 2)
            entry: dict[str, Any] = {"epoch": epoch, "losses": {"bpr": 0.5}, "valid": {"N@20": 0.125}, "seconds": 1.0}
            stopped = epoch == view.epochs
            view.epoch(Progress("run", epoch, best, 0.25, epoch - best, stopped, 1.0, 1.0, (entry,)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the time by one that passes only in `time.sleep`."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


LINES = {
    None: "3/15 LightGCN on ml-100k, seed 2020: epoch 2 of at most 100, N@20 0.1250, best 0.2500 at epoch 2, "
    "stops at epoch 12 without improvement, at most 49 min left, bpr 0.5000",
    "160": "3/15 LightGCN on ml-100k, seed 2020: epoch 2 of at most 100, N@20 0.1250, best 0.2500 at epoch 2, "
    "stops at epoch 12 without improvement, at most 49 min left",
    "120": "3/15 LightGCN on ml-100k, seed 2020: epoch 2/100, N@20 0.1250, best 0.2500 @2, stops at epoch 12, "
    "at most 49 min",
    "80": "3/15 LightGCN/ml-100k seed 2020: 2/100 N@20 0.1250 best 0.2500@2 stop@12 <49min",
}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("columns", LINES)
def test_a_line_has_the_width_of_the_console(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str | None
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    view = ConsoleView("LightGCN on ml-100k", 100, 0, "N@20", [], position="3/15", seed=2020, patience=10)
    train_epochs(view, 2)
    assert capsys.readouterr().err.splitlines()[1] == LINES[columns]


BARS = {
    "80": [
        "3/15 LightGCN on ml-100k, seed 2020 ━━━━━━━━━━━━━━━━ epoch 3/100, at most 49 min",
        "N@20 0.1250, best 0.2500 at epoch 2, stops at epoch 12, step 1/10",
    ],
    "120": [
        "3/15 LightGCN on ml-100k, seed 2020 ╸━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ "
        "epoch 3 of at most 100, at most 49 min left",
        "N@20 0.1250, best 0.2500 at epoch 2, stops at epoch 12 without improvement, step 1/10, bpr 0.2500 reg 0.1250",
    ],
}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("columns", BARS)
def test_a_terminal_shows_a_bar_and_at_the_end_one_line(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    terminal = open_terminal(monkeypatch, columns)
    view = ConsoleView("LightGCN on ml-100k", 100, 0, "N@20", [], position="3/15", seed=2020, patience=10)
    train_epochs(view, 2, then_steps=1)
    assert read_screen(terminal.getvalue()) == BARS[columns]
    view.close()
    start = "3/15 LightGCN on ml-100k, seed 2020: epoch 2"
    assert read_screen(terminal.getvalue()) == [
        f"{start}/100, N@20 0.1250, best 0.2500 @2"
        if columns == "80"
        else f"{start} of at most 100, N@20 0.1250, best 0.2500 at epoch 2, bpr 0.5000"
    ]
    assert sys.stderr is terminal


@pytest.mark.usefixtures("clock")
def test_no_number_is_cut_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch, "30")
    view = ConsoleView("LightGCN on ml-100k", 100, 0, "N@20", [], position="3/15", seed=2020, patience=10)
    train_epochs(view, 2, then_steps=1)
    assert " ".join(line.strip() for line in read_screen(terminal.getvalue())) == (
        "3/15 Light... seed 2020 3/100 <49min N@20 0.1250 best 0.2500@2 stop@12 step 1/10"
    )


@pytest.mark.usefixtures("clock")
def test_a_terminal_that_cannot_move_the_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    train_epochs(ConsoleView("X on Y", 9, 0, "N@20", []), 2)
    assert len(terminal.getvalue().splitlines()) == 2
    assert "\x1b" not in terminal.getvalue()


@pytest.mark.usefixtures("clock")
def test_the_bar_is_drawn_at_most_every_fifth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    view = ConsoleView("X on Y", 9, 0, "N@20", [])
    before = len(terminal.getvalue())
    for _ in range(100):
        time.sleep(0.001)
        view.step(1, 10, 10, {"bpr": 0.25})
    assert len(terminal.getvalue()) == before


def test_a_warning_appears_above_the_bar_and_what_is_printed_stays_in_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = open_terminal(monkeypatch)
    view = ConsoleView("X on Y", 9, 0, "N@20", [])
    print("a table")
    print("a warning", file=sys.stderr)
    view.close()
    assert capsys.readouterr().out == "a table\n"
    assert terminal.getvalue().index("a warning") < terminal.getvalue().rindex("X on Y")


@pytest.mark.parametrize(
    ("epoch", "best", "stale", "eval_every", "end"),
    [(1, 0, 0, 1, None), (4, 4, 0, 1, 14), (7, 4, 3, 1, 14), (8, 8, 0, 4, 48), (9, 8, 0, 4, 48), (12, 8, 1, 4, 48)],
)
def test_the_end_by_early_stopping(epoch: int, best: int, stale: int, eval_every: int, end: int | None) -> None:
    progress = Progress("run", epoch, best, 0.5, stale, False, 1.0, 1.0, ())
    assert find_early_end(progress, 10, eval_every) == end
