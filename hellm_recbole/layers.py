"""Propagation over graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hellm_recbole.graphs import SparseOperator


def propagate_mean(user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int) -> tuple[Tensor, Tensor]:
    """LightGCN propagation: the mean of layers 0..L of `X <- A X` over the bipartite graph (LightGCN Eq. 7, 8).

    `A` is symmetric, so the map is its own transpose: the backward pass is the same propagation of the gradients.

    Args:
        user: [U + 1, D] layer-0 embeddings.
        item: [I + 1, D] layer-0 embeddings.
        interactions: the normalised user-item block of `A`, [U + 1, I + 1].
        n_layers: L.

    Returns:
        [U + 1, D] and [I + 1, D].
    """
    propagated: tuple[Tensor, Tensor] = _PropagateMean.apply(user, item, interactions, n_layers)  # type: ignore[no-untyped-call]
    return propagated


class _PropagateMean(torch.autograd.Function):
    """Keeps nothing for the backward pass but the operator; each direction needs two buffers a side."""

    @staticmethod
    def forward(
        ctx: Any, user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int
    ) -> tuple[Tensor, Tensor]:
        ctx.interactions, ctx.n_layers = interactions, n_layers
        return _mean_of_layers(user, item, interactions, n_layers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        user, item = (gradient.contiguous() for gradient in gradients)
        return *_mean_of_layers(user, item, ctx.interactions, ctx.n_layers), None, None


def _mean_of_layers(user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int) -> tuple[Tensor, Tensor]:
    user_sum, item_sum = user.clone(), item.clone()
    for _ in range(n_layers):
        user, item = interactions.rows(item), interactions.columns(user)
        user_sum += user
        item_sum += item
    return user_sum.div_(n_layers + 1), item_sum.div_(n_layers + 1)
