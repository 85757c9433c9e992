from __future__ import annotations

from typing import Any

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.automatic_batch import UNREAD
from hellm_recbole.experiments.resolve import Resolver, resolve_runs

AUTO = [Override(None, "batch_size", "auto", "--set batch_size=auto")]


def resolve(name: str, interactions: int | None, overrides: list[Override] = AUTO, preset: str = "paper") -> Any:
    return Resolver("toy", REGISTRY, preset, overrides, interactions=interactions).resolve(name)


@pytest.mark.parametrize(("interactions", "factor"), [(1, 1), (224_999, 1), (225_000, 2), (1_230_208, 8)])
@pytest.mark.parametrize(("name", "own"), [("LightGCN", 2048), ("HeLLMPre", 1024), ("SASRec", 512)])
def test_the_models_own_batch_grows_with_the_interactions(name: str, own: int, interactions: int, factor: int) -> None:
    config = resolve(name, interactions)
    assert config.train.batch_size == own * factor
    assert config.resolved.values["batch_size"] == own * factor  # what the record holds
    wanted = f"--set batch_size=auto, auto: {own} x {factor} for {interactions:,} training interactions"
    assert config.resolved.origin["batch_size"] == wanted


def test_a_number_and_the_default_do_not_grow() -> None:
    assert resolve("LightGCN", 10**7, []).train.batch_size == 2048
    later = [*AUTO, Override("LightGCN", "batch_size", 64, "--set LightGCN.batch_size=64")]
    assert resolve("LightGCN", 10**7, later).train.batch_size == 64


def test_auto_after_a_number_grows_from_that_number_and_twice_auto_is_auto() -> None:
    number = Override(None, "batch_size", 10, "--set batch_size=10")
    assert resolve("LightGCN", 10**6, [number, *AUTO, *AUTO]).train.batch_size == 70


def test_a_model_that_trains_nothing_has_no_batch() -> None:
    assert "batch_size" not in resolve("Pop", 10**6).resolved.values


def test_while_the_data_are_unread_the_own_batch_size_stands_for_it() -> None:
    assert resolve("LightGCN", UNREAD).train.batch_size == 2048


def test_a_command_that_does_not_know_the_data_refuses_auto() -> None:
    with pytest.raises(SettingsError, match=r"^--set batch_size=auto: .* needs the data.* such as 2048$"):
        resolve_runs(["LightGCN"], "toy", REGISTRY, "paper", AUTO)


def test_other_settings_keep_the_value_auto() -> None:
    assert resolve("HeLLM", 10**6).resolved.values["llm"] == "auto"
