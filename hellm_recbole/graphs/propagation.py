"""Propagation over graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hellm_recbole.graphs.sparse import SparseOperator


def propagate_mean(
    user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """LightGCN propagation: the mean of layers 0..L of `X <- A X` over the bipartite graph (LightGCN Eq. 7, 8).

    `A` is symmetric, so the map is its own transpose: the backward pass is the same propagation of the gradients.

    Args:
        user: [U + 1, D] layer-0 embeddings.
        item: [I + 1, D] layer-0 embeddings.
        interactions: the normalised user-item block of `A`, [U + 1, I + 1].
        n_layers: L.
        dtype: of layers 1..L in both passes; None takes that of the embeddings, which their sum keeps.

    Returns:
        [U + 1, D] and [I + 1, D].
    """
    propagated: tuple[Tensor, Tensor] = _PropagateMean.apply(user, item, interactions, n_layers, dtype or user.dtype)  # type: ignore[no-untyped-call]
    return propagated


def propagate_mean_of(
    user: Tensor,
    item: Tensor,
    interactions: SparseOperator,
    n_layers: int,
    user_rows: Tensor,
    item_rows: Tensor,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Some rows of `propagate_mean`, to the last bit; the last layer and the first of the gradients are theirs alone.

    Args:
        user: [U + 1, D] layer-0 embeddings.
        item: [I + 1, D] layer-0 embeddings.
        interactions: the normalised user-item block of `A`, [U + 1, I + 1].
        n_layers: L.
        user_rows: [N] distinct rows of the users.
        item_rows: [M] distinct rows of the items.
        dtype: as there.

    Returns:
        [N, D] and [M, D].
    """
    if n_layers == 0:
        return user[user_rows], item[item_rows]
    rows: tuple[Tensor, Tensor] = _PropagateMeanOf.apply(
        user, item, interactions, n_layers, dtype or user.dtype, user_rows, item_rows
    )  # type: ignore[no-untyped-call]
    return rows


class _PropagateMean(torch.autograd.Function):
    """Keeps nothing for the backward pass but the operator; each direction needs two buffers a side."""

    @staticmethod
    def forward(
        ctx: Any, user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        ctx.interactions, ctx.n_layers, ctx.dtype = interactions, n_layers, dtype
        return _mean_of_layers(user, item, interactions, n_layers, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        user, item = (gradient.contiguous() for gradient in gradients)
        return *_mean_of_layers(user, item, ctx.interactions, ctx.n_layers, ctx.dtype), None, None, None


class _PropagateMeanOf(torch.autograd.Function):
    """The same for some rows: other rows' last layer is not asked for, and has no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        item: Tensor,
        interactions: SparseOperator,
        n_layers: int,
        dtype: torch.dtype,
        user_rows: Tensor,
        item_rows: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.interactions, ctx.n_layers, ctx.dtype = interactions, n_layers, dtype
        ctx.save_for_backward(user_rows, item_rows)
        of_users, of_items = user.index_select(0, user_rows), item.index_select(0, item_rows)
        layers = _layers(user.to(dtype), item.to(dtype), interactions, n_layers - 1)
        user, item = next(layers)
        for user, item in layers:
            of_users += user.index_select(0, user_rows)
            of_items += item.index_select(0, item_rows)
        of_users += interactions.rows.some(item, user_rows)
        of_items += interactions.columns.some(user, item_rows)
        return of_users.div_(n_layers + 1), of_items.div_(n_layers + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        user_rows, item_rows = ctx.saved_tensors
        of_users, of_items = gradients
        interactions, n_layers = ctx.interactions, ctx.n_layers
        user = interactions.rows.from_some(of_items.to(ctx.dtype), item_rows)
        item = interactions.columns.from_some(of_users.to(ctx.dtype), user_rows)
        (user, item), *others = _layers(user, item, interactions, n_layers - 1)
        user_sum, item_sum = user.to(of_users.dtype), item.to(of_items.dtype)  # all layers are made: these may change
        user_sum[user_rows] += of_users
        item_sum[item_rows] += of_items
        for user, item in others:
            user_sum += user
            item_sum += item
        return user_sum.div_(n_layers + 1), item_sum.div_(n_layers + 1), None, None, None, None, None


def _mean_of_layers(
    user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    user_sum, item_sum = user.clone(), item.clone()
    layers = _layers(user.to(dtype), item.to(dtype), interactions, n_layers)
    next(layers)
    for of_users, of_items in layers:
        user_sum += of_users
        item_sum += of_items
    return user_sum.div_(n_layers + 1), item_sum.div_(n_layers + 1)


def _layers(user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """X, A X .. A^L X."""
    yield user, item
    for _ in range(n_layers):
        user, item = interactions.rows(item), interactions.columns(user)
        yield user, item
