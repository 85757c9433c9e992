from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from hellm_recbole.training.checkpoint import Progress
from hellm_recbole.training.progress import ConsoleView


def build_progress(epoch: int, valid: dict[str, float] | None) -> Progress:
    entry: dict[str, Any] = {"epoch": epoch, "losses": {"bpr": 0.5}, "valid": valid, "seconds": 1.0}
    best = (epoch, valid["N@20"]) if valid else (0, 0.0)
    return Progress("run", epoch, *best, stale=0, stopped=False, train_seconds=1.0, eval_seconds=1.0, curve=(entry,))


def test_without_a_terminal_long_epochs_print_their_current_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
        "X on Y: epoch 1/5 step 20/80 bpr 0.2500, 183 s left of the epoch",
        "X on Y: epoch 1/5 step 40/80 bpr 0.2500, 122 s left of the epoch",
        "X on Y: epoch 1/5 bpr 0.5000, at most 976 s left",
        "X on Y: epoch 2/5 step 50/80 bpr 0.2500, 42 s left of the epoch",
        "X on Y: epoch 2/5 bpr 0.5000 N@20 0.1250 best 0.1250 @2, at most 516 s left",
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


def test_loggers_receive_the_current_step_of_a_long_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    class RecordingLogger:
        def __init__(self) -> None:
            self.calls: list[tuple[int, ...]] = []

        def step(self, epoch: int, step: int, n_steps: int) -> None:
            self.calls.append((epoch, step, n_steps))

        def log(self, epoch: int, values: Mapping[str, float]) -> None:
            self.calls.append((epoch,))

        def close(self) -> None:
            pass

    now, logger = 0.0, RecordingLogger()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    view = ConsoleView("X on Y", 5, 0, "N@20", [logger])
    for step in range(1, 9):
        now += 25.0
        view.step(1, step, 8, {})
    view.epoch(build_progress(1, None))
    for step in range(1, 5):
        now += 25.0
        view.step(2, step, 8, {})
    assert logger.calls == [(1, 3, 8), (1, 6, 8), (1,), (2, 3, 8)]
