from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.errors import MissingDependency
from hellm_recbole.training.checkpoint import Progress
from hellm_recbole.training.loggers import open_loggers
from hellm_recbole.training.progress import ConsoleView


def build_progress(epoch: int, valid: dict[str, float] | None) -> Progress:
    entry: dict[str, Any] = {"epoch": epoch, "losses": {"bpr": 0.5}, "valid": valid, "seconds": 1.0}
    best = (epoch, valid["N@20"]) if valid else (0, 0.0)
    return Progress("run", epoch, *best, stale=0, stopped=False, train_seconds=1.0, eval_seconds=1.0, curve=(entry,))


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


def test_a_resumed_run_does_not_log_an_epoch_twice(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, epochs in ((0, (1, 2, 3)), (2, (3, 4))):  # killed after the checkpoint of epoch 2
        (logger,) = open_loggers(["tensorboard"], tmp_path, "toy/X/1", done, {})
        for epoch in epochs:
            logger.log(epoch, {"loss/bpr": done + epoch / 8})
            logger.step(epoch, 1, 10)
        logger.close()
        time.sleep(1.1)  # the names of the files contain the second
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss/bpr")]
    assert found == [(1, 0.125), (2, 0.25), (3, 2.375), (4, 2.5)]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_without_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def import_nothing(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(importlib, "import_module", import_nothing)
    with pytest.raises(MissingDependency, match=rf"logger {name} needs the package {name}, .*--set loggers=\[\]"):
        open_loggers([name], tmp_path, "toy/X/1", 0, {})
