"""Vectors of the items, and the map from states to them."""

from __future__ import annotations

import torch
from torch import nn

from hellm_recbole.models.llm_head import EmbeddingVectors, FrozenRandomVectors, LinearVectors, QueryMap, SharedVectors


def test_each_head_trains_what_it_should() -> None:
    inputs = torch.randn(5, 3)
    embedding, linear, frozen = EmbeddingVectors(5), LinearVectors(5, 4), FrozenRandomVectors(5, 4)
    assert torch.equal(embedding(inputs).items, inputs)
    assert embedding(inputs).item_bias is embedding.item_bias
    assert linear(inputs).items is linear.classes
    assert isinstance(linear.classes, nn.Parameter)
    assert not list(frozen.parameters())
    assert list(frozen.state_dict()) == ["classes"]
    assert frozen(inputs).items.abs().max() <= 0.5  # 1 / sqrt(H)
    shared = SharedVectors()(inputs)
    assert shared.items is inputs
    assert shared.item_bias is None


def test_measured_states_have_mean_0_and_deviation_1() -> None:
    states = torch.randn(50, 4, dtype=torch.float64) * torch.tensor([1.0, 100.0, 3.0, 0.1]) + 7.0
    queries = QueryMap(4, None, 0.0, state_eps=0.0)
    assert queries.needs_measuring()
    queries.measure(states)
    assert not queries.needs_measuring()
    mapped = queries(states)
    assert torch.allclose(mapped.mean(0), torch.zeros(4), atol=1e-4)
    assert torch.allclose(mapped.std(0), torch.ones(4), atol=1e-4)


def test_states_that_are_not_scaled_are_left_as_they_are() -> None:
    states = torch.randn(3, 4)
    queries = QueryMap(4, None, 0.0, state_eps=None)
    assert not queries.needs_measuring()
    assert torch.equal(queries(states), states)
    assert not QueryMap(4, 2, 0.0, state_eps=None)(states).any()  # the map starts at zero
