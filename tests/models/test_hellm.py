"""HeLLM as a composition of parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.run_config import LLMRunConfig
from hellm_recbole.models.hellm import HeLLM
from hellm_recbole.models.llm_inputs import ItemTokens
from tests.toy_llm import N_ITEMS, build_model, make_batch, make_data, settings, tiny_llama, toy_tables


def test_hellm_reads_two_tables_and_has_a_graph_prefix() -> None:
    model = build_model(tiny_llama())
    assert type(model) is HeLLM
    assert type(model.reader.items) is ItemTokens
    assert model.reader.items.inputs.shape[1] == 2 * 6  # HeLLMPre and SASRec
    assert model.reader.prefix is not None
    assert model.reader.graph is not None


def test_tensors_have_the_names_that_files_of_earlier_versions_have() -> None:
    names = {name.partition(".")[0] for name in build_model(tiny_llama()).state_dict()}
    measured = {"state_mean", "state_scale", "token_scale", "text_alone"}
    assert names == {"backbone", "projector", "prefix", "output", "item_bias", *measured}


@pytest.mark.parametrize("examples", ["causal", "all"])
def test_a_learned_map_starts_from_the_released_form_and_is_trained(examples: str) -> None:
    plain, mapped = (build_model(tiny_llama(), examples=examples, prefix_map=form) for form in ("none", "learned"))
    batch = make_batch(examples)
    assert torch.equal(plain.loss(batch)["cross_entropy"], mapped.loss(batch)["cross_entropy"])
    mapped.train().loss(batch)["cross_entropy"].backward()
    assert mapped.reader.prefix is not None
    assert mapped.reader.prefix.graph_map is not None
    gradient = mapped.reader.prefix.graph_map.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    assert {name for name, _ in mapped.named_parameters()} - {name for name, _ in plain.named_parameters()} == {
        "prefix.graph_map"
    }


def test_the_map_has_the_width_of_the_graph_embeddings() -> None:
    data = make_data()
    data = replace(data, pretrained={**data.pretrained, "HeLLMPre": toy_tables(N_ITEMS, width=5)["HeLLMPre"]})
    model = HeLLM.build(settings(tiny_llama(), prefix_map="learned"), data)
    counts = {name: value.shape for name, value in model.named_parameters()}
    assert counts["prefix.graph_map"] == (5, 5)
    assert counts["prefix.networks.0.0.weight"] == (8, 25)
    assert torch.isfinite(model.loss(make_batch())["cross_entropy"])


def test_without_a_graph_nothing_is_mapped() -> None:
    model = build_model(tiny_llama(), prefix_map="learned", prefix_graph=None)
    assert model.reader.prefix is not None
    assert model.reader.prefix.graph_map is None


@pytest.mark.parametrize("preset", ["paper", "quick", "published"])
def test_the_released_variant_is_the_same_under_each_preset(preset: str) -> None:
    config = resolve_own_run("HeLLM-released", "Beauty", REGISTRY, preset, [])
    assert isinstance(config, LLMRunConfig)
    chosen, train, steps = config.model_settings, config.train, config.steps
    sentence = "Given the user\u2019s purchase history, predict next possible item to be purchased."
    assert chosen.prompt.endswith(f"### Instruction:\n{sentence}\n\n### Input:\n")
    assert (chosen.ending, chosen.item_separator, chosen.user_model) == ("\n### Response:\n", "", None)
    assert (chosen.examples, steps.example_items, chosen.max_history, steps.drop_last) == ("all", 48, 49, True)
    assert (chosen.pad_pooled_to, chosen.residual_dtype, chosen.prefix_map) == (2, "float32", "none")
    assert (chosen.head, chosen.scaled_inputs, chosen.item_dropout, chosen.head_dropout) == (
        "frozen-random",
        False,
        0,
        0,
    )
    assert (train.epochs, train.batch_size, train.learning_rate, train.clip_norm) == (20, 7, 3e-4, 0)
    assert train.learning_rate * train.learning_rate_floor == pytest.approx(5e-6, rel=1e-12)
    assert train.patience >= train.epochs
