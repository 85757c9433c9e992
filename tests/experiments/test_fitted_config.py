"""Run configs of models that are fitted when they are built."""

from __future__ import annotations

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.request import Override
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.export import refuse_embeddings
from hellm_recbole.experiments.fitted_config import FittedRunConfig, drop_unread
from hellm_recbole.experiments.resolve import Resolver, resolve_runs
from hellm_recbole.experiments.search_point import change_settings
from tests.toy_combined import SETTINGS_WITHOUT_TRAINING


def resolve(name: str, preset: str = "quick") -> FittedRunConfig:
    (config,) = resolve_runs([name], "toy", REGISTRY, preset, [])
    assert isinstance(config, FittedRunConfig)
    return config


@pytest.mark.parametrize(("name", "own"), [("Pop", set()), ("ItemKNN", {"k", "shrink"}), ("EASE", {"l2_weight"})])
def test_a_fitted_model_has_no_settings_of_training(name: str, own: set[str]) -> None:
    config = resolve(name)
    assert config.resolved.values.keys() == SETTINGS_WITHOUT_TRAINING | own
    assert (config.source, config.name_in_source, config.family) == ("hellm_recbole", name, "collaborative")
    assert not config.has_item_embeddings
    assert not config.has_user_embeddings
    modules = config.identify_code()
    assert {"hellm_recbole.training.fitted", "hellm_recbole.experiments.fitted_config"} < modules.keys()
    assert "recbole" not in modules


def test_a_setting_of_training_is_refused_if_it_names_a_fitted_model() -> None:
    override = Override("Pop", "epochs", 5, "--set Pop.epochs=5")
    with pytest.raises(SettingsError, match=r"--set Pop\.epochs=5: unknown setting 'epochs'"):
        resolve_runs(["Pop"], "toy", REGISTRY, "quick", [override])
    for_all = Override(None, "epochs", 5, "--set epochs=5")
    configs = resolve_runs(["Pop", "SASRec"], "toy", REGISTRY, "quick", [for_all])
    assert [config.resolved.values.get("epochs") for config in configs] == [None, 5]
    resolve_runs(["Pop"], "toy", REGISTRY, "quick", [for_all])  # the same command with fewer models
    with pytest.raises(SettingsError, match="unknown setting 'epoch'"):
        resolve_runs(["Pop"], "toy", REGISTRY, "quick", [Override(None, "epoch", 5, "--set epoch=5")])


def test_a_search_changes_its_settings() -> None:
    changed = change_settings(resolve("EASE"), [Override("EASE", "l2_weight", 10.0, "trial")])
    assert isinstance(changed, FittedRunConfig)
    assert changed.model_settings.l2_weight == 10.0
    with pytest.raises(SettingsError, match=r"l2_weight = 0\.0 must be > 0"):
        change_settings(resolve("EASE"), [Override("EASE", "l2_weight", 0.0, "trial")])


def test_its_embeddings_are_neither_exported_nor_read() -> None:
    with pytest.raises(ModelError, match="there are none of Pop, EASE, which trains no embeddings"):
        refuse_embeddings([resolve("Pop"), resolve("EASE")])
    override = Override("LLaRA", "item_inputs", ["ItemKNN"], "--set item_inputs=[ItemKNN]")
    with pytest.raises(ModelError, match="ItemKNN has no item embeddings that another model can read; name one of BPR"):
        Resolver("toy", REGISTRY, "quick", [override]).resolve_with_pretrained(["LLaRA"])


def test_only_settings_of_all_models_are_dropped() -> None:
    resolved = Resolved(
        {"epochs": 1, "k": 2, "x": 3}, {"epochs": "overall.yaml", "k": "overall.yaml", "x": "--set x=3"}
    )
    assert drop_unread(resolved, {"k"}).values == {"k": 2, "x": 3}
