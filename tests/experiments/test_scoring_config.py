"""Run configs of trained models that compute the scores of all items themselves."""

from __future__ import annotations

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.export import refuse_embeddings
from hellm_recbole.experiments.resolve import Resolver, resolve_runs
from hellm_recbole.experiments.scoring_config import ScoringRunConfig


def resolve(preset: str = "quick") -> ScoringRunConfig:
    (config,) = resolve_runs(["TIGER"], "toy", REGISTRY, preset, [])
    assert isinstance(config, ScoringRunConfig)
    return config


def test_the_code_of_the_run_contains_how_it_is_scored() -> None:
    config = resolve()
    assert (config.source, config.name_in_source, config.family) == ("hellm_recbole", "TIGER", "sequential")
    own = {f"baselines.{name}" for name in ("tiger", "semantic_ids", "code_search")}
    harness = {"hellm_recbole.training.scoring", "hellm_recbole.experiments.scoring_config"}
    assert own | harness < config.identify_code().keys()


def test_it_has_no_embeddings_to_export_or_to_read() -> None:
    config = resolve()
    assert not config.has_item_embeddings
    assert not config.has_user_embeddings
    assert not config.spec.has_item_embeddings
    with pytest.raises(ModelError, match="there are none of TIGER, which computes scores without vectors"):
        refuse_embeddings([config])
    override = Override("LLaRA", "item_inputs", ["TIGER"], "--set item_inputs=[TIGER]")
    with pytest.raises(ModelError, match="TIGER has no item embeddings that another model can read"):
        Resolver("toy", REGISTRY, "quick", [override]).resolve_with_pretrained(["LLaRA"])


@pytest.mark.parametrize(
    ("preset", "epochs", "width"), [("paper", 200, 128), ("published", 200, 128), ("quick", 5, 64)]
)
def test_presets(preset: str, epochs: int, width: int) -> None:
    config = resolve(preset)
    assert (config.train.epochs, config.model_settings.emb_dim) == (epochs, width)
    needed = max(config.evaluation.cutoffs) + config.model_settings.max_history
    assert config.model_settings.beam_size >= needed  # so many candidates are left without the history
