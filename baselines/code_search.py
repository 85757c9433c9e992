"""Beam search over the codes of the items: it extends a code only by digits that some item has.

The prefixes of all codes form a tree, whose leaves are the items. A step of the search scores the children of the kept
prefixes of each user and keeps the best ones. With a beam as large as the catalogue, every item is scored.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class PrefixScorer(Protocol):
    """Scores the next digits of prefixes for a batch of users."""

    def start(self) -> Tensor:
        """Return the [B, 1, V] log-probabilities of the first digit."""

    def extend(self, parent: Tensor, digit: Tensor) -> Tensor:
        """Extend prefixes by a digit each.

        Args:
            parent: [B, K] positions of the extended prefixes among those of the last call.
            digit: [B, K] digits.

        Returns:
            [B, K, V] log-probabilities of the next digit of the K new prefixes.
        """


class CodeTree(nn.Module):
    """The tree of the prefixes of all codes. Nodes of a depth are numbered in lexicographic order of their prefixes.

    A child is found by bisection in the sorted keys `parent V + digit` of its depth, so memory is linear in the items.

    Args:
        codes: [I, L] int64 codes of the items, no two of them equal.
        n_digits: V, number of digits.
    """

    def __init__(self, codes: Tensor, n_digits: int) -> None:
        super().__init__()
        self.n_digits, self.n_levels = n_digits, codes.shape[1]
        node = torch.zeros_like(codes[:, 0])
        for depth in range(self.n_levels):
            keys, node = torch.unique(node * n_digits + codes[:, depth], return_inverse=True)
            self.register_buffer(f"keys_{depth}", keys, persistent=False)
        assert len(keys) == len(codes), "two items have the same codes"
        self.register_buffer("leaf_item", torch.argsort(node), persistent=False)  # [I] leaf -> item, from 0
        self.leaf_item: Tensor

    def get_keys(self, depth: int) -> Tensor:
        """Return the keys of the nodes of depth + 1, sorted: `parent V + digit`."""
        keys: Tensor = getattr(self, f"keys_{depth}")
        return keys

    def find_children(self, depth: int, node: Tensor) -> tuple[Tensor, Tensor]:
        """Find the children of nodes for each digit.

        Args:
            depth: depth of the nodes.
            node: [B, K] nodes.

        Returns:
            [B, K, V] child, and [B, K, V] whether it exists.
        """
        keys = self.get_keys(depth)
        wanted = node.unsqueeze(2) * self.n_digits + torch.arange(self.n_digits, device=node.device)
        child = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return child, keys[child] == wanted


def search_items(tree: CodeTree, scorer: PrefixScorer, n_users: int, beam_size: int) -> tuple[Tensor, Tensor]:
    """Search the items with the largest log-probability of their codes.

    Args:
        tree: tree of the codes.
        scorer: scorer of the batch.
        n_users: B, number of users in the batch.
        beam_size: number of prefixes kept at each depth.

    Returns:
        [B, K] items, from 0, and [B, K] float32 log-probabilities, best first; K is the size of the beam or the number
        of items, if that is smaller. A log-probability of minus infinity means that the beam found fewer than K items.
    """
    log_probability = scorer.start()
    node = tree.leaf_item.new_zeros(n_users, 1)
    score = log_probability.new_zeros(n_users, 1)
    for depth in range(tree.n_levels):
        child, exists = tree.find_children(depth, node)
        total = (score.unsqueeze(2) + log_probability).masked_fill(~exists, -torch.inf).flatten(1)
        n_kept = min(beam_size, total.shape[1], len(tree.get_keys(depth)))
        score, best = total.topk(n_kept, dim=1)
        node = child.flatten(1).gather(1, best)
        if depth + 1 < tree.n_levels:
            log_probability = scorer.extend(best // tree.n_digits, best % tree.n_digits)
    return tree.leaf_item[node], score


def spread_scores(item: Tensor, score: Tensor, n_items: int) -> Tensor:
    """Write the scores of found items into a row of all items.

    All other items get one and the same score, one below the lowest that was found: as ties count against the target,
    each of them ranks last.

    Args:
        item: [B, K] items, from 0.
        score: [B, K] scores; minus infinity marks an entry without an item.
        n_items: I.

    Returns:
        [B, I] scores.

    >>> spread_scores(torch.tensor([[2, 0]]), torch.tensor([[-1.0, -3.0]]), 4).tolist()
    [[-3.0, -4.0, -1.0, -4.0]]
    """
    found = score > -torch.inf
    lowest = score.masked_fill(~found, torch.inf).amin(dim=1, keepdim=True) - 1
    rows = lowest.repeat(1, n_items + 1)
    rows.scatter_(1, torch.where(found, item, n_items), torch.where(found, score, lowest))
    return rows[:, :n_items]
