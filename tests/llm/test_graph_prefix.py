"""Pooled graph embeddings, and the networks between them and the prefixes."""

from __future__ import annotations

import pytest
import torch

from hellm_recbole.llm.graph_prefix import GraphPrefix, pool_graph
from hellm_recbole.llm.packing import PackedBatch


def test_pooling_of_sequences_equals_a_sum_over_items() -> None:
    vectors = torch.randn(3, 4, 2)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    vectors = vectors * mask.unsqueeze(-1)
    batch = PackedBatch.from_mask(mask)
    causal, whole = (pool_graph(vectors, batch, causal=flag) for flag in (True, False))
    index = 0
    for b in range(3):
        total = torch.zeros(2, 2)
        for t in range(int(mask[b].sum())):
            total = total + torch.outer(vectors[b, t], vectors[b, t])
            assert torch.allclose(causal[index], total.flatten(), atol=1e-5)
            index += 1
        assert torch.allclose(whole[b], total.flatten(), atol=1e-5)
    assert index == len(causal)


def test_the_papers_normalisation_comes_before_the_network() -> None:
    torch.manual_seed(0)
    prefix = GraphPrefix(1, 2, 6, 2, 5, 0.0, norm_first=True, eps=1e-5)
    pooled = torch.randn(3, 4)
    for term, network in zip(prefix.compute_graph_terms(pooled), prefix.networks, strict=True):
        assert torch.allclose(term, network(pooled / (pooled.square().mean(-1, keepdim=True) + 1e-5).sqrt()), atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_the_papers_map_equals_a_loop_over_users_with_its_gradient(causal: bool) -> None:
    torch.manual_seed(0)
    table = torch.randn(6, 3, dtype=torch.float64)  # D = 3, row 0 is padding and not zero: it must not be pooled
    items = torch.tensor([[4, 2, 0, 0], [5, 1, 3, 3], [2, 0, 0, 0]])
    prefix = GraphPrefix(1, 2, 6, 3, 5, 0.0, norm_first=False, eps=1e-5, learned_map=True).double()
    assert prefix.graph_map is not None
    torch.nn.init.normal_(prefix.graph_map)
    mask = items != 0
    mapped = prefix.map_graph(table[items] * mask.unsqueeze(-1))
    found = pool_graph(mapped, PackedBatch.from_mask(mask), causal=causal)

    slow_map = prefix.graph_map.detach().clone().requires_grad_()
    rows = []
    for history in items:
        pooled = torch.zeros(3, 3, dtype=torch.float64)
        for item in history[history != 0]:
            mapped_item = torch.stack([(table[item] * slow_map[:, column]).sum() for column in range(3)])
            pooled = pooled + torch.outer(mapped_item, mapped_item)
            rows += [pooled.flatten()] if causal else []
        rows += [] if causal else [pooled.flatten()]
    expected = torch.stack(rows)
    assert torch.allclose(found, expected, atol=1e-12)
    weights = torch.randn_like(expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert prefix.graph_map.grad is not None
    assert torch.allclose(prefix.graph_map.grad, slow_map.grad, atol=1e-10)  # type: ignore[arg-type]


def test_the_map_starts_as_the_identity_and_draws_no_random_number() -> None:
    prefixes = []
    for learned_map in (False, True):
        torch.manual_seed(3)
        prefixes.append(GraphPrefix(1, 2, 6, 3, 5, 0.0, norm_first=False, eps=1e-5, learned_map=learned_map))
    assert torch.equal(prefixes[1].state_dict()["graph_map"], torch.eye(3))
    for name, value in prefixes[0].state_dict().items():
        assert torch.equal(value, prefixes[1].state_dict()[name])
    vectors = torch.randn(2, 4, 3)
    assert prefixes[0].map_graph(vectors) is vectors
    assert torch.equal(prefixes[1].map_graph(vectors), vectors)
