from __future__ import annotations

import importlib.util
from typing import get_args

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from hellm_recbole.config.harness_settings import LoggerName
from hellm_recbole.errors import MissingDependency
from hellm_recbole.training.trackers.base import Outcome, TrackedRun
from hellm_recbole.training.trackers.opening import find_missing_loggers, open_tracker, refuse_missing_loggers


def test_every_tracker_of_accelerate_can_be_chosen() -> None:
    assert sorted(get_args(LoggerName)) == sorted(LOGGER_TYPE_TO_CLASS)


def test_a_tracker_is_opened_by_its_name(tracked: TrackedRun) -> None:
    open_tracker("tensorboard", tracked, 1).finish(Outcome("success"))
    assert [path.name for path in tracked.folder.iterdir()] == ["tensorboard"]


def test_a_tracker_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    assert find_missing_loggers(["wandb", "comet_ml"]) == ["wandb", "comet_ml"]
    with pytest.raises(MissingDependency, match=r"needs the package comet_ml, .*; pip install comet-ml, or run with"):
        refuse_missing_loggers(["comet_ml"])
    with pytest.raises(MissingDependency, match=r"pip install 'hellm-recbole\[wandb\]'"):
        refuse_missing_loggers(["wandb"])
