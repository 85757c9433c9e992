"""Losses as pure functions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = 4 << 20  # of logits held at a time: they stay in cache, which matters more than the arithmetic


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking: `-mean log sigmoid(positive - negative)` (Rendle et al. 2009).

    RecBole and MMRec write `log(1e-10 + sigmoid)`; the stable form here differs from it by less than 1e-6 unless a
    difference is below about -9.

    Args:
        positive: [B] scores of observed items.
        negative: [B] scores of sampled items.

    >>> round(float(bpr(torch.tensor([1.0]), torch.tensor([1.0]))), 4)
    0.6931
    """
    return F.softplus(negative - positive).mean()


def l2(*blocks: Tensor) -> Tensor:
    """`1/2 * sum of squares / B` over blocks of B rows each (LightGCN Eq. 15 per batch).

    RecBole's `EmbLoss` is by default the sum of unsquared norms instead.

    >>> float(l2(torch.tensor([[2.0]]), torch.tensor([[4.0]])))
    10.0
    """
    total = torch.stack([block.square().sum() for block in blocks]).sum()
    return 0.5 * total / blocks[0].shape[0]


def softmax_cross_entropy(query: Tensor, items: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of `softmax(query @ items.T)` against target rows, with bounded memory.

    Logits are made in blocks and turned into both gradients at once, so that no [N, I] matrix is ever kept. Equal to
    `F.cross_entropy(query @ items.T, target)` in value and gradient up to rounding.

    Args:
        query: [N, D].
        items: [I, D] one vector a class.
        target: [N] class indices in 0..I-1.
    """
    loss: Tensor = _SoftmaxCrossEntropy.apply(query, items, target)  # type: ignore[no-untyped-call]
    return loss


class _SoftmaxCrossEntropy(torch.autograd.Function):
    """Computes the gradients in the forward pass, block by block; the backward pass only scales them."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, items: Tensor, target: Tensor) -> Tensor:
        n, n_items = query.shape[0], items.shape[0]
        rows = max(1, CHUNK_BYTES // (4 * n_items))
        needs_gradient = query.requires_grad or items.requires_grad
        query_gradient = torch.empty_like(query)
        items_gradient = torch.zeros_like(items)
        buffer = query.new_empty(min(rows, n), n_items)
        total = query.new_zeros((), dtype=torch.float64)
        for start in range(0, n, rows):
            block, label = query[start : start + rows], target[start : start + rows]
            logits = buffer[: len(block)]
            torch.mm(block, items.T, out=logits)
            top = logits.amax(dim=1, keepdim=True)
            at_label = logits.gather(1, label.unsqueeze(1)) - top
            probability = logits.sub_(top).exp_()
            normaliser = probability.sum(dim=1, keepdim=True)
            total += (normaliser.log() - at_label).sum(dtype=torch.float64)
            if needs_gradient:  # d loss / d logits = (softmax - one hot) / N; the 1 / N is left to the end
                rows_gradient = query_gradient[start : start + rows]
                torch.mm(probability, items, out=rows_gradient)
                rows_gradient.div_(normaliser).sub_(
                    items[label]
                )  # scaling the narrow matrices spares a pass over logits
                items_gradient.addmm_(probability.T, block / normaliser)
                items_gradient.index_add_(0, label, block, alpha=-1.0)
        ctx.save_for_backward(query_gradient.div_(n), items_gradient.div_(n))
        return (total / n).to(query.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        query_gradient, items_gradient = ctx.saved_tensors
        scale = gradients[0]
        return query_gradient * scale, items_gradient * scale, None
