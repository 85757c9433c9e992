"""Pack the sequences of a batch one after the other, without padding, and sum values inside each sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """Which tokens belong to which sequence of a batch: sequences follow each other without padding in [1, N, H].

    Attributes:
        index: [B, T] index in 0..N-1 of each token among the packed ones; 0 at padding.
        mask: [B, T] whether a sequence has a token at that position.
        positions: [N] position of each packed token in the flattened [B * T].
    """

    index: Tensor
    mask: Tensor
    positions: Tensor

    @staticmethod
    def from_mask(mask: Tensor) -> PackedBatch:
        """Describe the batch of a [B, T] mask; tokens are packed sequence by sequence."""
        index = (mask.flatten().long().cumsum(0) - 1).view_as(mask)
        return PackedBatch(torch.where(mask, index, 0), mask, mask.flatten().nonzero().squeeze(1))

    @staticmethod
    def from_lengths(lengths: Tensor) -> PackedBatch:
        """Describe the batch of sequences of [B] lengths."""
        return PackedBatch.from_mask(torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None])

    def pad(self, packed: Tensor) -> Tensor:
        """Turn packed [heads, N, d] into padded [B, heads, T, d], with zeros at padding."""
        b, length = self.mask.shape
        return _scatter(packed, self.positions, b * length).view(len(packed), b, length, -1).transpose(0, 1)

    def pack(self, padded: Tensor) -> Tensor:
        """Turn padded [B, heads, T, d] into packed [heads, N, d]."""
        return _gather(padded.transpose(0, 1).flatten(1, 2), self.positions)


class _Gather(torch.autograd.Function):
    """Takes distinct entries of the second axis. The backward pass of torch itself would add them one by one."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, positions: Tensor) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.size = whole.shape[1]
        return whole.index_select(1, positions)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _scatter(gradients[0], ctx.saved_tensors[0], ctx.size), None


class _Scatter(torch.autograd.Function):
    """The inverse of `_Gather`: puts entries back at their positions, with zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, positions: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(positions)
        return part.new_zeros(part.shape[0], size, part.shape[2]).index_copy_(1, positions, part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _gather(gradients[0], ctx.saved_tensors[0]), None, None


def _gather(whole: Tensor, positions: Tensor) -> Tensor:
    """Take [heads, N, d] entries of [heads, M, d] at [N] distinct positions of the second axis."""
    out: Tensor = _Gather.apply(whole, positions)  # type: ignore[no-untyped-call]
    return out


def _scatter(part: Tensor, positions: Tensor, size: int) -> Tensor:
    """Put [heads, N, d] entries at [N] distinct positions of the second axis of a [heads, size, d] tensor of zeros."""
    out: Tensor = _Scatter.apply(part, positions, size)  # type: ignore[no-untyped-call]
    return out


def sum_groups(values: Tensor, counts: Tensor) -> Tensor:
    """Sum consecutive groups of [N] values: [B] sums; group b has counts[b] values.

    >>> sum_groups(torch.tensor([1, 2, 3]), torch.tensor([2, 1])).tolist()
    [3, 3]
    """
    total = F.pad(values.cumsum(0), (1, 0))
    ends = counts.cumsum(0)
    return total[ends] - total[ends - counts]


def compute_running_mean(tokens: Tensor, batch: PackedBatch) -> Tensor:
    """Compute the [N, H] mean of each packed [N, H] token and of those before it in its sequence.

    >>> compute_running_mean(torch.tensor([[1.0], [3.0]]), PackedBatch.from_mask(torch.tensor([[True, True]]))).tolist()
    [[1.0], [2.0]]
    """
    total = tokens.cumsum(dim=0)
    first = batch.index[:, 0]
    before = torch.where((first > 0)[:, None], total[(first - 1).clamp(min=0)], 0.0)
    length = batch.mask.sum(1)
    count = batch.positions % batch.mask.shape[1] + 1
    return (total - before.repeat_interleave(length, dim=0)) / count[:, None]
