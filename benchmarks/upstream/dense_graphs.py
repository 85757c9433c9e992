"""The graphs of our models as dense matrices, by their names in the public code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hellm_recbole.benchmarks.upstream.sample_data import N_ITEMS, N_USERS


def make_dense(operator: Any, width: int) -> Tensor:
    """Return a graph operator as a dense matrix of `width` columns, without the padding row and column."""
    applied: Tensor = operator(torch.eye(width + 1, dtype=torch.float64))
    return applied[1:, 1:]


def list_graphs(name: str, ours: Any) -> dict[str, Tensor]:
    """Return our graphs as dense matrices without padding, by their names in the public code.

    GRCN has none, because it stores edges instead of a matrix, and VBPR has no graph.
    """
    size = N_USERS + N_ITEMS

    def join_blocks(user_item: Tensor, item_user: Tensor) -> Tensor:
        matrix = torch.zeros(size, size, dtype=torch.float64)
        matrix[:N_USERS, N_USERS:], matrix[N_USERS:, :N_USERS] = user_item, item_user
        return matrix

    def make_symmetric(operator: Any) -> Tensor:
        block = make_dense(operator, N_ITEMS)
        return join_blocks(block, block.T)

    if name in ("GRCN", "VBPR"):
        return {}
    if name == "LightGCN":
        return {"norm_adj_matrix": make_symmetric(ours.interactions)}
    if name == "FREEDOM":
        return {
            "norm_adj": make_symmetric(ours.whole_graph),
            "masked_adj": make_symmetric(ours.denoised_graph),
            "mm_adj": make_dense(ours.item_graph, N_ITEMS),
        }
    if name == "HeLLMPre":
        return {
            "interactions": make_symmetric(ours.interactions),
            "users": make_dense(ours.user.hypergraph, N_USERS),
            "items": make_dense(ours.item.hypergraph, N_ITEMS),
        }
    if name == "LATTICE":
        walk = join_blocks(make_dense(ours.user_mean, N_ITEMS), make_dense(ours.item_mean, N_USERS))
        walk.diagonal().copy_(torch.cat([ours.user_inverse[1:], ours.item_inverse[1:]]).ravel())
        fixed = {
            f"{name}_original_adj": make_dense(part, N_ITEMS)
            for name, part in zip(ours.maps, ours.fixed_graphs, strict=True)
        }
        return {"norm_adj": walk, **fixed}
    return {"norm_adj": make_symmetric(ours.interactions)}
