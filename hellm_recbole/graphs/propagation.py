"""LightGCN propagation on the user-item graph, of all vectors or of given rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hellm_recbole.graphs.sparse import SparseOperator


def propagate_mean(
    user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the mean of layers 0..L of the propagation `X <- A X` on the user-item graph (LightGCN Eq. 7, 8).

    `A` is symmetric, so the operator equals its transpose. The backward pass propagates the gradients in the same way.

    Args:
        user: [U + 1, D] layer-0 embeddings.
        item: [I + 1, D] layer-0 embeddings.
        interactions: the normalised user-item block of `A`, [U + 1, I + 1].
        n_layers: L.
        dtype: data type of layers 1..L in both passes; None uses the type of the embeddings. The sum of the layers
            always has the type of the embeddings.

    Returns:
        [U + 1, D] user vectors and [I + 1, D] item vectors.
    """
    propagated: tuple[Tensor, Tensor] = _PropagateMean.apply(user, item, interactions, n_layers, dtype or user.dtype)  # type: ignore[no-untyped-call]
    return propagated


def propagate_mean_rows(
    user: Tensor,
    item: Tensor,
    interactions: SparseOperator,
    n_layers: int,
    user_rows: Tensor,
    item_rows: Tensor,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute only the given rows of `propagate_mean`; they are equal bit for bit.

    This saves work in the last layer, and in the first layer of the backward pass: both are computed from or for the
    given rows only.

    Args:
        user: [U + 1, D] layer-0 embeddings.
        item: [I + 1, D] layer-0 embeddings.
        interactions: the normalised user-item block of `A`, [U + 1, I + 1].
        n_layers: L.
        user_rows: [N] distinct user ids.
        item_rows: [M] distinct item ids.
        dtype: data type of layers 1..L, as in `propagate_mean`.

    Returns:
        [N, D] vectors of these users and [M, D] vectors of these items.
    """
    if n_layers == 0:
        return user[user_rows], item[item_rows]
    propagated: tuple[Tensor, Tensor] = _PartialPropagateMean.apply(
        user, item, interactions, n_layers, dtype or user.dtype, user_rows, item_rows
    )  # type: ignore[no-untyped-call]
    return propagated


class _PropagateMean(torch.autograd.Function):
    """`propagate_mean` without stored layers.

    The backward pass needs the operator only. Each pass needs two buffers for the users and two for the items.
    """

    @staticmethod
    def forward(
        ctx: Any, user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        ctx.interactions, ctx.n_layers, ctx.dtype = interactions, n_layers, dtype
        return _compute_layer_mean(user, item, interactions, n_layers, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        user, item = (gradient.contiguous() for gradient in gradients)
        return *_compute_layer_mean(user, item, ctx.interactions, ctx.n_layers, ctx.dtype), None, None, None


class _PartialPropagateMean(torch.autograd.Function):
    """`propagate_mean_rows`: the last layer of the other rows is not computed and has no gradient."""

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
        user_sum, item_sum = user.index_select(0, user_rows), item.index_select(0, item_rows)
        layers = _generate_layers(user.to(dtype), item.to(dtype), interactions, n_layers - 1)
        user, item = next(layers)
        for user, item in layers:
            user_sum += user.index_select(0, user_rows)
            item_sum += item.index_select(0, item_rows)
        user_sum += interactions.matrix.compute_product_rows(item, user_rows)
        item_sum += interactions.transpose.compute_product_rows(user, item_rows)
        return user_sum.div_(n_layers + 1), item_sum.div_(n_layers + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        user_rows, item_rows = ctx.saved_tensors
        user_gradient, item_gradient = gradients
        interactions, n_layers = ctx.interactions, ctx.n_layers
        user = interactions.matrix.multiply_nonzero_rows(item_gradient.to(ctx.dtype), item_rows)
        item = interactions.transpose.multiply_nonzero_rows(user_gradient.to(ctx.dtype), user_rows)
        (user, item), *later_layers = _generate_layers(user, item, interactions, n_layers - 1)
        # The list above has computed all layers, so that the first one may be changed in place.
        user_sum, item_sum = user.to(user_gradient.dtype), item.to(item_gradient.dtype)
        user_sum[user_rows] += user_gradient
        item_sum[item_rows] += item_gradient
        for user, item in later_layers:
            user_sum += user
            item_sum += item
        return user_sum.div_(n_layers + 1), item_sum.div_(n_layers + 1), None, None, None, None, None


def _compute_layer_mean(
    user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Compute the mean of layers 0..L, outside autograd."""
    user_sum, item_sum = user.clone(), item.clone()
    layers = _generate_layers(user.to(dtype), item.to(dtype), interactions, n_layers)
    next(layers)
    for layer_user, layer_item in layers:
        user_sum += layer_user
        item_sum += layer_item
    return user_sum.div_(n_layers + 1), item_sum.div_(n_layers + 1)


def _generate_layers(
    user: Tensor, item: Tensor, interactions: SparseOperator, n_layers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the user and item vectors of the layers X, A X, ..., A^L X."""
    yield user, item
    for _ in range(n_layers):
        user, item = interactions.matrix(item), interactions.transpose(user)
        yield user, item
