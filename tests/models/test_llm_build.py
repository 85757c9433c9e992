"""Which parts the settings choose, and what they are built from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.errors import ModelError
from hellm_recbole.models.llm_average import CausalAverage, EndingAverage
from hellm_recbole.models.llm_build import join_item_tables, sample_histories
from hellm_recbole.models.llm_head import EmbeddingVectors, FrozenRandomVectors, LinearVectors
from hellm_recbole.models.llm_inputs import CurriculumTokens, ItemTokens, TwoStepTokens
from hellm_recbole.models.llm_reader import CausalReader, EndingReader
from hellm_recbole.types import Histories
from tests.toy_llm import build_model, make_data, tiny_llama


@pytest.mark.parametrize(
    ("changes", "reader", "tokens", "vectors"),
    [
        ({}, CausalReader, ItemTokens, EmbeddingVectors),
        ({"examples": "random", "head": "linear"}, EndingReader, ItemTokens, LinearVectors),
        ({"tuning": "two-step", "item_text_tokens": 2}, CausalReader, TwoStepTokens, EmbeddingVectors),
        ({"tuning": "curriculum", "item_text_tokens": 2}, CausalReader, CurriculumTokens, EmbeddingVectors),
        ({"llm_weights": "none"}, CausalAverage, ItemTokens, EmbeddingVectors),
        (
            {"llm_weights": "none", "examples": "all", "head": "frozen-random"},
            EndingAverage,
            ItemTokens,
            FrozenRandomVectors,
        ),
    ],
)
def test_settings_choose_parts(changes: dict[str, Any], reader: type, tokens: type, vectors: type) -> None:
    model = build_model(tiny_llama(), **changes)
    assert (type(model.reader), type(model.reader.items), type(model.vectors)) == (reader, tokens, vectors)
    assert model.reader.reads_texts is ("item_text_tokens" in changes)


@pytest.mark.parametrize(
    ("changes", "learned", "pooled"),
    [({}, True, True), ({"prefix_graph": None}, True, False), ({"prefix_length": 0}, False, False)],
)
def test_a_prefix_is_learned_pooled_or_absent(changes: dict[str, Any], learned: bool, pooled: bool) -> None:
    reader = build_model(tiny_llama(), **changes).reader
    assert ((reader.prefix is not None), (reader.graph is not None)) == (learned, pooled)


def test_item_tables_are_joined_at_one_scale() -> None:
    data = make_data()
    tables = [torch.from_numpy(data.pretrained[name]) for name in ("HeLLMPre", "SASRec")]
    assert torch.equal(join_item_tables(("HeLLMPre", "SASRec"), data, scaled=False), torch.cat(tables, dim=1))
    for part in join_item_tables(("HeLLMPre", "SASRec"), data, scaled=True).chunk(2, dim=1):
        assert torch.isclose(part[1:].square().mean(), torch.tensor(1.0))
        assert not part[0].any()


def test_missing_inputs_are_named() -> None:
    with pytest.raises(ModelError, match="embeddings of BM3 are needed"):
        build_model(tiny_llama(), item_inputs=("SASRec", "BM3"))
    with pytest.raises(ModelError, match="user embeddings of SASRec are needed"):
        build_model(tiny_llama(), item_inputs=("SASRec",), prefix_graph=None, prompt="{user} bought", examples="all")


def test_sampled_histories_are_those_of_users_with_items() -> None:
    user, item = np.array([1, 1, 1, 3]), np.array([5, 6, 7, 8])
    data = replace(make_data(), n_users=3, history=Histories.from_pairs(user, item, 3))
    sample = sample_histories(data, n_users=3, max_history=2)
    assert (sample.user.tolist(), sample.items.tolist()) == ([1, 1, 3], [[6, 7], [6, 7], [8, 0]])
