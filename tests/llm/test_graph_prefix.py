"""Pooled graph embeddings, and the networks between them and the prefixes."""

from __future__ import annotations

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
    prefix = GraphPrefix(1, 2, 6, 4, 5, 0.0, norm_first=True, eps=1e-5)
    pooled = torch.randn(3, 4)
    for term, network in zip(prefix.compute_graph_terms(pooled), prefix.networks, strict=True):
        assert torch.allclose(term, network(pooled / (pooled.square().mean(-1, keepdim=True) + 1e-5).sqrt()), atol=1e-6)
