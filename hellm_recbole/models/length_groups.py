"""Divide right-padded histories into groups of similar length, so that models compute little padding."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def find_length_groups(length: Tensor, factor: int = 2) -> list[Tensor]:
    """Divide [B] lengths into groups in (f^(g-1), f^g], f the factor: the rows of each group; those of 0 are in none.

    >>> [rows.tolist() for rows in find_length_groups(torch.tensor([3, 0, 1, 4, 5]))]
    [[2], [0, 3], [4]]
    >>> [rows.tolist() for rows in find_length_groups(torch.tensor([3, 0, 1, 4, 5]), factor=4)]
    [[2], [0, 3], [4]]
    """
    group = torch.where(length > 0, (length.clamp(min=1).log2() / math.log2(factor)).ceil().long(), -1)
    return [torch.nonzero(group == value).squeeze(1) for value in torch.unique(group[group >= 0]).tolist()]


def group_by_length(items: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Divide a batch into groups of histories of similar length, see `find_length_groups`.

    Args:
        items: [B, L] right-padded histories.
        targets: [B, L] next items; 0 where there is none.

    Returns:
        Items and targets of each group, cut to its longest history. Empty histories are left out.
    """
    length = (items != 0).sum(dim=1)
    parts = []
    for rows in find_length_groups(length):
        width = int(length[rows].max())
        parts.append((items[rows, :width], targets[rows, :width]))
    return parts
