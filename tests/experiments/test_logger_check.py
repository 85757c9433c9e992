from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.errors import MissingDependency
from hellm_recbole.experiments.logger_check import choose_loggers, describe_missing_loggers
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.experiments.run_config import RunConfig


def resolve(*overrides: Override) -> RunConfig:
    (config,) = resolve_runs(["LightGCN"], "toy", REGISTRY, "quick", overrides)
    return config


@pytest.fixture
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name == "tensorboard" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_installed_loggers_are_used() -> None:
    assert choose_loggers(resolve()) == ("tensorboard",)
    assert describe_missing_loggers([resolve()]) is None


@pytest.mark.usefixtures("no_tensorboard")
def test_a_default_logger_without_its_package_is_left_out_with_a_note() -> None:
    assert choose_loggers(resolve()) == ()
    assert describe_missing_loggers([resolve(), resolve()]) == (
        "no curves are logged to tensorboard, which is not installed: pip install 'hellm-recbole[tensorboard]', or "
        "--set loggers=[]"
    )


@pytest.mark.usefixtures("no_tensorboard")
def test_a_logger_that_somebody_asked_for_is_refused_without_its_package() -> None:
    config = resolve(Override(None, "loggers", ["tensorboard"], "--set"))
    for function in (choose_loggers, lambda one: describe_missing_loggers([one])):
        with pytest.raises(MissingDependency, match=r"logger tensorboard needs the package tensorboard, .*pip install"):
            function(config)
    assert choose_loggers(resolve(Override(None, "loggers", [], "--set"))) == ()
