"""The preset `published`: the values of the HeLLM paper, of its released code and logs, and of the rivals' authors."""

from __future__ import annotations

from typing import Any

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.experiments.resolve import Resolver, resolve_own_run
from hellm_recbole.models.llm_settings import USER_SLOT, refuse_contradictions

DATASETS = ("Beauty", "Toys", "Sports", "TikTok", "mine")
GRAPH_KEYS = (
    *("n_user_layers", "n_item_layers", "n_neighbors", "temperature"),
    *("user_contrast_weight", "item_contrast_weight", "l2_weight"),
)
UNPUBLISHED = ("SASRec-text", "SASRec-text-llm", "HeLLM-plus")  # models of this project, which keep their own settings


def read_values(model: str, dataset: str, *keys: str) -> list[Any]:
    config = Resolver(dataset, REGISTRY, "published", []).resolve(model)
    return [config.resolved.values[key] for key in keys]


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_model_and_variant_is_64_wide_and_has_no_value_found_here_for_a_dataset(dataset: str) -> None:
    variants = [variant for variant, model in list_all_variants().items() if model not in UNPUBLISHED]
    names = [name for name in ("RecBole-BPR", *REGISTRY, *variants) if name not in UNPUBLISHED]
    for config in Resolver(dataset, REGISTRY, "published", []).resolve_with_pretrained(names):
        values, origin = config.resolved.values, config.resolved.origin
        width = 128 if config.model == "TIGER" else 64  # the paper does not have TIGER
        assert values.get("emb_dim", values.get("embedding_size", width)) == width
        assert not [key for key, file in origin.items() if file.startswith("model/") and "datasets: " in file]
        assert values.get("optimizer", "adam") == ("adamw" if config.family == "llm" else "adam")


@pytest.mark.parametrize(
    "model", [name for name, spec in REGISTRY.items() if spec.family != "llm" and name not in UNPUBLISHED]
)
def test_rates_batches_and_weights_of_a_rival_are_stated_by_the_preset(model: str) -> None:
    config = resolve_own_run(model, "Beauty", REGISTRY, "published", [])
    own = {key for key, file in config.resolved.origin.items() if file.startswith("model/")}
    assert own <= {
        *("exact_knn_items", "hnsw_links", "hnsw_build_effort", "hnsw_search_effort"),  # exact on these datasets
        *("propagation_dtype", "contrast_dtype", "contrast_part_triples"),  # not part of the method
    }


@pytest.mark.parametrize("model", UNPUBLISHED)
def test_a_model_that_no_publication_has_keeps_its_own_settings(model: str) -> None:
    published, own = (resolve_own_run(model, "Beauty", REGISTRY, preset, []) for preset in ("published", "paper"))
    assert published.resolved.values == own.resolved.values


@pytest.mark.parametrize(
    ("dataset", "values"),
    [
        ("Sports", [2, 2, 5, 0.5, 0.7, 0.1, 1e-3]),
        ("Beauty", [2, 1, 10, 0.5, 0.9, 0.1, 1e-4]),
        ("Toys", [3, 2, 10, 0.3, 0.03, 0.07, 1e-3]),
        ("mine", [3, 2, 5, 0.6, 0.03, 0.07, 1e-3]),
    ],
)
def test_the_pretraining_stage_has_the_values_of_the_logs(dataset: str, values: list[Any]) -> None:
    assert read_values("HeLLMPre", dataset, *GRAPH_KEYS) == values


def test_the_pretraining_stage_follows_the_paper() -> None:
    training = read_values("HeLLMPre", "Beauty", "learning_rate", "batch_size", "epochs", "eval_every", "patience")
    assert training == [1e-4, 1024, 1000, 5, 6]
    assert read_values("HeLLMPre", "Beauty", "sampling", "schedule", "contrast_nodes") == [
        "users",
        "exponential",
        "all",
    ]
    forms = ("user_normalization", "hyperedges", "contrast_anchor", "l2_on")
    assert read_values("HeLLMPre", "Beauty", *forms) == ["symmetric", "neighbors", "bipartite", "parameters"]


@pytest.mark.parametrize(("dataset", "epochs"), [("Sports", 20), ("Beauty", 25), ("Toys", 25), ("mine", 20)])
@pytest.mark.parametrize("model", ["HeLLM", "CoLLM", "LLaRA"])
def test_models_with_a_language_model_are_trained_as_the_paper_says(model: str, dataset: str, epochs: int) -> None:
    keys = ("epochs", "warmup_epochs", "learning_rate", "batch_size", "weight_decay", "adam_beta2", "clip_norm")
    assert read_values(model, dataset, *keys) == [epochs, 1, 3e-4, 7, 0.1, 0.95, 0.0]
    (floor,) = read_values(model, dataset, "learning_rate_floor")
    assert floor * 3e-4 == pytest.approx(5e-6)
    assert read_values(model, dataset, "schedule", "head", "examples") == ["cosine", "linear", "all"]
    config = resolve_own_run(model, dataset, REGISTRY, "published", [])
    assert config.train.patience * config.train.eval_every >= epochs  # never stopped early
    refuse_contradictions(config.model_settings, ())


def test_e4srec_is_trained_as_its_released_code() -> None:
    keys = ("epochs", "learning_rate", "batch_size", "weight_decay", "adam_beta2", "clip_norm", "learning_rate_floor")
    assert read_values("E4SRec", "Beauty", *keys) == [3, 3e-4, 16, 0.0, 0.999, 1.0, 0.0]
    forms = ("item_inputs", "item_projector", "head", "examples", "schedule", "prefix_length", "item_separator")
    assert read_values("E4SRec", "Beauty", *forms) == [["SASRec"], "linear", "linear", "all", "cosine", 0, ""]
    refuse_contradictions(resolve_own_run("E4SRec", "Beauty", REGISTRY, "published", []).model_settings, ())


def test_hellm_has_the_papers_prefix_and_the_prompt_of_its_figure() -> None:
    assert read_values("HeLLM", "Beauty", "prefix_map", "prefix_norm", "prefix_length") == ["learned", "before", 10]
    prompt, separator = read_values("HeLLM", "Beauty", "prompt", "item_separator")
    assert (prompt.count(USER_SLOT), separator) == (1, ", ")
    users = {"HeLLM": "HeLLMPre", "HeLLM-without-U2U": "HeLLMPre-without-U2U", "CoLLM": "LightGCN", "LLaRA": None}
    for model, user_model in users.items():
        settings = resolve_own_run(model, "Beauty", REGISTRY, "published", []).model_settings
        assert settings.user_model == user_model
    assert read_values("CoLLM", "Beauty", "prefix_length", "item_inputs") == [0, ["LightGCN"]]
