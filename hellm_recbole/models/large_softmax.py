"""Cross-entropy of a softmax over very many items, in memory that does not grow with positions x items.

`losses.softmax_cross_entropy_loss` keeps the logits of one block of positions for all items. Here only one tile of
positions x items is in memory at any time; the backward pass computes the logits a second time. Of the forward pass it
needs one number for each position, the logarithm of the partition sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hellm_recbole.models import losses


def large_softmax_loss(query: Tensor, items: Tensor, target: Tensor) -> Tensor:
    """Compute the mean cross-entropy of `softmax(query @ items.T)` for the target items.

    Value and gradient are those of `F.cross_entropy(query @ items.T, target)`, up to rounding.

    Args:
        query: [N, D] query vectors.
        items: [I, D] item vectors, one for each class.
        target: [N] class indices in 0..I-1.
    """
    loss: Tensor = _LargeSoftmax.apply(query, items, target)  # type: ignore[no-untyped-call]
    return loss


def _split(n: int, size: int) -> list[slice]:
    """Divide 0..n-1 into spans of at most `size` numbers."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


class _LargeSoftmax(torch.autograd.Function):
    """The gradient of the queries comes from the forward pass, that of the items from logits computed again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, items: Tensor, target: Tensor) -> Tensor:
        n, (rows, columns) = len(query), losses.TILE
        query_gradient = torch.zeros_like(query)
        log_sum = query.new_empty(n, 1)
        tile = query.new_empty(min(rows, n) * min(columns, len(items)))
        for block in _split(n, rows):
            rows_gradient = query_gradient[block]
            top = query.new_full((len(rows_gradient), 1), -torch.inf)  # largest logit of each row so far
            normaliser = torch.zeros_like(top)  # sum of exp(logit - top) so far
            for span in _split(len(items), columns):
                logits = _compute_logits(query[block], items[span], tile)
                new_top = torch.maximum(top, logits.amax(dim=1, keepdim=True))
                before = (top - new_top).exp_()
                weight = logits.sub_(new_top).exp_()
                normaliser.mul_(before).add_(weight.sum(dim=1, keepdim=True))
                rows_gradient.mul_(before).addmm_(weight, items[span])
                top = new_top
            rows_gradient.div_(normaliser)
            log_sum[block] = top + normaliser.log()
        target_items = items[target]
        exact = torch.float32 if query.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        total = (log_sum - (query * target_items).sum(dim=1, keepdim=True)).sum(dtype=exact)
        query_gradient.sub_(target_items).div_(n)
        ctx.save_for_backward(query, items, target, log_sum, query_gradient)
        return (total / n).to(query.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        query, items, target, log_sum, query_gradient = ctx.saved_tensors
        scale = gradients[0]
        if not ctx.needs_input_grad[1]:
            return query_gradient * scale, None, None
        n, (rows, columns) = len(query), losses.TILE
        items_gradient = torch.zeros_like(items)
        tile = query.new_empty(min(rows, n) * min(columns, len(items)))
        for span in _split(len(items), columns):
            for block in _split(n, rows):
                weight = _compute_logits(query[block], items[span], tile).sub_(log_sum[block]).exp_()
                items_gradient[span].addmm_(weight.T, query[block])
        items_gradient.index_add_(0, target, query, alpha=-1.0)
        return query_gradient * scale, items_gradient.mul_(scale / n), None


def _compute_logits(block: Tensor, items: Tensor, tile: Tensor) -> Tensor:
    """Compute the logits of a block of positions for a span of items, in the memory of `tile`."""
    return torch.mm(block, items.T, out=tile[: len(block) * len(items)].view(len(block), len(items)))
