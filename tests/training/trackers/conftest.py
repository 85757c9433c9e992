from __future__ import annotations

import os
from pathlib import Path

import pytest

from hellm_recbole.training.trackers import guard
from hellm_recbole.training.trackers.base import TrackedRun


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of trackers from outside, and none of one test in the next one."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # logins are stored there
    monkeypatch.setattr(guard, "_reported", set())
    monkeypatch.setattr(guard, "_failed_at", {})


@pytest.fixture
def tracked(tmp_path: Path) -> TrackedRun:
    """A run for trackers."""
    settings = {"dropout": 0.5, "cutoffs": (5, 10), "llm": None}
    return TrackedRun("toy/X/1", tmp_path / "run", settings, {"dataset": "toy", "model": "X", "seed": "1"})
