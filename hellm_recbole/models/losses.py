"""Compute losses, as pure functions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = (512, 2048)  # rows and columns of a block of products, small enough for the cache: 4 MB


def bpr_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Compute the loss of Bayesian personalised ranking: `-mean log sigmoid(positive - negative)` (Rendle et al. 2009).

    RecBole and MMRec write `log(1e-10 + sigmoid)`; the stable form here differs from it by less than 1e-6 unless a
    difference is below about -9.

    Args:
        positive: [B] scores of observed items.
        negative: [B] scores of sampled items.

    >>> round(float(bpr_loss(torch.tensor([1.0]), torch.tensor([1.0]))), 4)
    0.6931
    """
    return F.softplus(negative - positive).mean()


def bpr_loss_of_vectors(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Compute `bpr_loss` from the inner products of user vectors with item vectors.

    Args:
        user: [B, D] user vectors.
        positive: [B, D] vectors of observed items.
        negative: [B, D] vectors of sampled items.

    >>> ones = torch.ones(1, 2)
    >>> round(float(bpr_loss_of_vectors(ones, ones, ones)), 4)
    0.6931
    """
    return bpr_loss((user * positive).sum(dim=1), (user * negative).sum(dim=1))


def l2_loss(*blocks: Tensor) -> Tensor:
    """Compute `1/2 * sum of squares / B` over blocks of B rows each (LightGCN Eq. 15 for one batch).

    RecBole's `EmbLoss` is by default the sum of unsquared norms instead.

    >>> float(l2_loss(torch.tensor([[2.0]]), torch.tensor([[4.0]])))
    10.0
    """
    total = torch.stack([block.square().sum() for block in blocks]).sum()
    return 0.5 * total / blocks[0].shape[0]


def softmax_cross_entropy_loss(query: Tensor, items: Tensor, target: Tensor) -> Tensor:
    """Compute the mean cross-entropy of `softmax(query @ items.T)` for the target items, with bounded memory.

    Logits are computed in blocks, and each block is used for both gradients at once, so that no [N, I] matrix is kept.
    Value and gradient are those of `F.cross_entropy(query @ items.T, target)`, up to rounding.

    Args:
        query: [N, D] query vectors.
        items: [I, D] item vectors, one for each class.
        target: [N] class indices in 0..I-1.
    """
    loss: Tensor = _SoftmaxCrossEntropy.apply(query, items, target)  # type: ignore[no-untyped-call]
    return loss


def _make_tiles(like: Tensor, rows: int, n_columns: int) -> list[tuple[slice, Tensor]]:
    """Divide columns into spans of `TILE` columns, and make a [rows, columns] buffer for each.

    The buffers are separate tensors, so that each of them fits into a cache.

    Args:
        like: tensor whose number type and device the buffers get.
        rows: number of rows of a buffer.
        n_columns: number of all columns.
    """
    spans = [slice(left, min(left + TILE[1], n_columns)) for left in range(0, n_columns, TILE[1])]
    return [(span, like.new_empty(rows, span.stop - span.start)) for span in spans]


class _SoftmaxCrossEntropy(torch.autograd.Function):
    """Computes the gradients in the forward pass, block by block; the backward pass only scales them."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, items: Tensor, target: Tensor) -> Tensor:
        n, n_items = query.shape[0], items.shape[0]
        rows = TILE[0]
        query_gradient = torch.zeros_like(query)
        items_gradient = torch.zeros_like(items)
        tiles = _make_tiles(query, min(rows, n), n_items)
        exact = torch.float32 if query.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        total = query.new_zeros((), dtype=exact)
        for start in range(0, n, rows):
            block, label = query[start : start + rows], target[start : start + rows]
            rows_gradient = query_gradient[start : start + rows]
            top = block.new_full((len(block), 1), -torch.inf)  # largest logit of each row so far
            normaliser = block.new_zeros(len(block), 1)  # sum of exp(logit - top) so far
            tops = []
            for span, tile in tiles:  # logits of each tile are shifted by its own largest ones
                logits = torch.mm(block, items[span].T, out=tile[: len(block)])
                tile_top = logits.amax(dim=1, keepdim=True)
                weight = logits.sub_(tile_top).exp_()
                new_top = torch.maximum(top, tile_top)
                before, now = (top - new_top).exp_(), (tile_top - new_top).exp_()
                normaliser.mul_(before).add_(weight.sum(dim=1, keepdim=True).mul_(now))
                rows_gradient.mul_(before).add_(torch.mm(weight, items[span]).mul_(now))
                top = new_top
                tops.append(tile_top)
            target_items = items[label]
            target_logit = (block * target_items).sum(dim=1, keepdim=True)
            total += (top + normaliser.log() - target_logit).sum(dtype=exact)
            rows_gradient.div_(normaliser).sub_(
                target_items
            )  # d loss / d logits = (softmax - one hot) / N; 1 / N is applied at the end
            share = block / normaliser
            for (span, tile), tile_top in zip(tiles, tops, strict=True):
                items_gradient[span].addmm_(tile[: len(block)].T, share * (tile_top - top).exp_())
            items_gradient.index_add_(0, label, block, alpha=-1.0)
        ctx.save_for_backward(query_gradient.div_(n), items_gradient.div_(n))
        return (total / n).to(query.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        query_gradient, items_gradient = ctx.saved_tensors
        scale = gradients[0]
        return query_gradient * scale, items_gradient * scale, None


def node_contrast_loss(anchor: Tensor, view: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """Compute the contrast of two views of the same nodes (HeLLM Eq. 7, as in the released code).

    With `c` the cosine, and z and h the rows of `anchor` and `view`:
    `-mean_n log exp(c(z_n, h_n) / t) / (sum_{m != n} exp(c(z_n, z_m) / t) + sum_m exp(c(z_n, h_m) / t))`,
    a cross-entropy over 2 N - 1 nodes in one direction. GRACE, on which it is based, averages both directions. Each
    block of rows is used for both gradients at once, so that memory grows with a block, not with N squared.

    Args:
        anchor: [N, D] vectors z of any length.
        view: [N, D] vectors h of any length.
        temperature: t, at least 0.02 (so that exponents stay within single precision).
        dtype: number type of the products with the nodes; sums and the loss have that of the arguments.
    """
    unit_anchor, unit_view = F.normalize(anchor, dim=1), F.normalize(view, dim=1)
    loss: Tensor = _NodeContrast.apply(unit_anchor, unit_view, temperature, dtype)  # type: ignore[no-untyped-call]
    return loss


class _NodeContrast(torch.autograd.Function):
    """Computes the gradients in the forward pass, block by block; the backward pass only scales them."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, view: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
        n = anchor.shape[0]
        nodes = torch.cat([anchor, view]).to(dtype)  # [2 N, D]
        rows = TILE[0]
        tiles = _make_tiles(nodes, min(rows, n), 2 * n)
        row_gradient = torch.zeros_like(anchor)
        node_gradient = anchor.new_zeros(2 * n, anchor.shape[1])
        log_sum = anchor.new_empty(n)
        for start in range(0, n, rows):
            block = nodes[start : min(start + rows, n)]
            span_of_block = slice(start, start + len(block))
            scaled, rows_gradient = block / temperature, row_gradient[span_of_block]
            total = anchor.new_zeros(len(block), 1)
            for span, tile in tiles:
                weight = torch.mm(scaled, nodes[span].T, out=tile[: len(block)]).exp_()
                weight.diagonal(
                    start - span.start
                ).zero_()  # a node is not a negative of itself; most tiles have no such entries
                total += weight.sum(dim=1, keepdim=True, dtype=anchor.dtype)
                _add_product(rows_gradient, weight, nodes[span])
            log_sum[span_of_block] = total.squeeze(1).log()
            rows_gradient /= total
            share = (block / total).to(dtype)
            for span, tile in tiles:
                _add_product(node_gradient[span], tile[: len(block)].T, share)
        similarity = (anchor * view).sum(dim=1) / temperature
        scale = 1.0 / (temperature * n)
        view_gradient = node_gradient[n:].sub_(anchor).mul_(scale)
        anchor_gradient = row_gradient.add_(node_gradient[:n]).sub_(view).mul_(scale)
        ctx.save_for_backward(anchor_gradient, view_gradient)
        return (log_sum - similarity).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        anchor_gradient, view_gradient = ctx.saved_tensors
        return anchor_gradient * gradients[0], view_gradient * gradients[0], None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right` to `total` in place, in the precision of `total`."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right)
