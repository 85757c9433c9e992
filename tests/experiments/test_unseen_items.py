from __future__ import annotations

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.unseen_items import can_score_unseen_items, refuse_blind_models

BLIND = {"LightGCN", "BPR", "SASRec", "BSARec", "Pop", "ItemKNN", "EASE"}
KIND = "cold-items:valid_share=0.1,test_share=0.1,seed=2024"


def make_resolver() -> Resolver:
    return Resolver("Beauty", REGISTRY, "paper", ())


@pytest.mark.parametrize("name", sorted({*BLIND, "VBPR", "FREEDOM", "HeLLMPre", "SASRec-text", "HeLLM-plus"}))
def test_models_that_read_features_or_texts_can_score_unseen_items(name: str) -> None:
    config = make_resolver().resolve(name)
    others = {model: make_resolver().resolve(model) for model in config.pretrained_models}
    assert can_score_unseen_items(config, others, ["text"]) == (name not in BLIND)


def test_models_that_read_embeddings_are_as_good_as_these() -> None:
    resolver = make_resolver()
    llm, sasrec, graph = (resolver.resolve(name) for name in ("LLaRA", "SASRec", "HeLLMPre"))
    assert not can_score_unseen_items(llm, dict.fromkeys(llm.pretrained_models, sasrec), ["text"])
    assert can_score_unseen_items(llm, dict.fromkeys(llm.pretrained_models, graph), ["text"])
    assert can_score_unseen_items(llm, {}, ["text"])  # its embeddings are in a file


def test_combined_rows_need_a_term_that_can() -> None:
    configs = {config.model: config for config in make_resolver().resolve_with_pretrained(["Fusion(SASRec,LightGCN)"])}
    assert not can_score_unseen_items(configs["Fusion(SASRec,LightGCN)"], {}, ["text"])
    configs = {config.model: config for config in make_resolver().resolve_with_pretrained(["SASRec-priors"])}
    assert can_score_unseen_items(configs["SASRec-priors"], {}, ["text"])  # text-kNN
    assert not can_score_unseen_items(configs["SASRec-priors"], {}, [])


def test_named_models_that_cannot_are_refused_in_one_sentence() -> None:
    configs = make_resolver().resolve_with_pretrained(["LightGCN", "VBPR", "Pop"])
    with pytest.raises(ModelError, match=r"which LightGCN, Pop cannot score, because they read neither features nor"):
        refuse_blind_models(configs, ["LightGCN", "VBPR", "Pop"], KIND, ["text"])
    refuse_blind_models(configs, ["VBPR"], KIND, ["text"])
    refuse_blind_models(configs, ["LightGCN"], "ratio:valid_share=0.1,test_share=0.1", ["text"])
    refuse_blind_models(configs, ["LightGCN"], "leave-one-out", ["text"])
