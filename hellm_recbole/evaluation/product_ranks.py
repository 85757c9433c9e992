"""Ranks of scores that are a product of vectors, without the matrix of all scores.

The product is computed tile by tile: some hundred users times a thousand items. A tile stays in the CPU's cache, where
it is compared with the scores of the targets before the next one overwrites it. So the memory does not depend on the
numbers of users and items, and the scores of the masked items are read in the same pass.

A score has the same bits in a tile as in the product with all items: the product adds its D terms in the same order
wherever the score stands. This does not hold for products of a few rows or columns, which other kernels compute, so
tiles have at least `SMALLEST` of both. That the score of each target is the same in its tile as where it was computed
first is checked; where it is not, nothing is returned, and the caller ranks with all scores at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hellm_recbole.evaluation.counting import RowCounter
from hellm_recbole.types import FloatArray, Histories, IdArray

TILE_USERS = 512
SMALLEST = 32  # rows and columns of a product
_TILE_ITEMS = 1024
_OVERFLOW = 1e38  # sums below this bound cannot become infinite, and so not NaN


@dataclass(frozen=True)
class ItemVectors:
    """Item vectors of an evaluation.

    Attributes:
        vectors: [I, D] float32 item vectors.
        bias: [I] float32 bias of each item; None for no bias.
        largest: largest absolute value of the vectors; NaN if one is NaN.
        largest_bias: the same of the biases; 0 for no bias.
    """

    vectors: Tensor
    bias: Tensor | None
    largest: float
    largest_bias: float

    @staticmethod
    def build(vectors: Tensor, bias: Tensor | None) -> ItemVectors:
        """Find the largest absolute values of item vectors and biases."""
        largest_bias = 0.0 if bias is None else find_largest(bias)
        return ItemVectors(vectors, bias, find_largest(vectors), largest_bias)

    def may_be_nan(self, query: Tensor) -> bool:
        """Return whether a score of these user vectors could be NaN: one is not finite, or a sum could overflow."""
        bound = self.largest * find_largest(query) * self.vectors.shape[1] + self.largest_bias
        return not bound < _OVERFLOW


def find_largest(values: Tensor) -> float:
    """Find the largest absolute value; NaN if one is NaN, and 0 for an empty tensor."""
    return max(map(abs, map(float, torch.aminmax(values)))) if values.numel() else 0.0


@dataclass(frozen=True)
class Scored:
    """What the ranks of t targets follow from.

    Attributes:
        target: [t] score of each target.
        count: [t] number of all items with a score at least as high.
        other: [P] scores of further (row, item) pairs.
    """

    target: npt.NDArray[np.floating]
    count: IdArray
    other: npt.NDArray[np.floating]


@runtime_checkable
class ProductScorer(Protocol):
    """A scorer whose scores may be a product of user and item vectors, so that they can be ranked tile by tile."""

    def get_item_vectors(self) -> ItemVectors | None:
        """Return the item vectors; None if scores have to be computed for all items at once. Call `prepare` before."""

    def compute_query(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the vectors of some users, [B, D] float32; arguments as in `types.Scorer.compute_scores`."""


class TileRanker:
    """Counts scores tile by tile, in buffers that are reused."""

    def __init__(self) -> None:
        self._scores = torch.empty(0)
        self._counter = RowCounter()

    def score(
        self, query: Tensor, items: ItemVectors, row_of: IdArray, item: IdArray, pair_row: IdArray, pair_item: IdArray
    ) -> Scored | None:
        """Compute the scores of some pairs, and count for each target the items with a score at least as high.

        Args:
            query: [B, D] user vectors, B at least `SMALLEST`.
            items: item vectors.
            row_of: [t] row of each target, sorted; each row has a target.
            item: [t] item id of each target.
            pair_row: [P] rows of further pairs.
            pair_item: [P] item ids of further pairs.

        Returns:
            Scores and counts. None if a score is NaN, or if the product has not computed each target's score alike.
        """
        target = score_pairs(query, items, row_of, item)
        checks_nan = items.may_be_nan(query)
        if checks_nan and np.isnan(target).any():
            return None
        column = np.concatenate([item, pair_item]) - 1
        row = np.concatenate([row_of, pair_row])
        order = np.argsort(column)
        row, column = row[order], column[order]
        starts = divide_items(len(items.vectors))
        bounds = np.searchsorted(column, starts)
        found = np.empty(len(order), dtype=target.dtype)
        count = np.zeros(len(item), dtype=np.int64)
        layers = list_layers(row_of)
        for tile, (start, stop) in enumerate(pairwise(starts.tolist())):
            scores = self._multiply(query, items, start, stop)
            if checks_nan and np.isnan(scores).any():
                return None
            for rows, chosen in layers:
                count[chosen] += self._counter.count(scores if rows is None else scores[rows], target[chosen])
            inside = slice(bounds[tile], bounds[tile + 1])
            found[order[inside]] = scores[row[inside], column[inside] - start]
        if not np.array_equal(found[: len(item)], target):
            return None
        return Scored(target, count, found[len(item) :])

    def _multiply(self, query: Tensor, items: ItemVectors, start: int, stop: int) -> FloatArray:
        """Compute the scores of the items in columns `start` to `stop`, [B, stop - start]."""
        n_rows, width = len(query), stop - start
        if self._scores.numel() < n_rows * width:
            self._scores = torch.empty(n_rows * width)
        out = torch.mm(query, items.vectors[start:stop].T, out=self._scores[: n_rows * width].view(n_rows, width))
        if items.bias is not None:
            out += items.bias[start:stop]
        scores: FloatArray = out.numpy()
        return scores


def score_pairs(query: Tensor, items: ItemVectors, row: IdArray, item: IdArray) -> FloatArray:
    """Compute the scores of (row, item) pairs, each by a product of several rows and columns, as in a tile.

    Args:
        query: [B, D] user vectors, B at least `SMALLEST`.
        items: item vectors.
        row: [P] rows, sorted.
        item: [P] item ids.

    Returns:
        [P] scores.
    """
    scores = np.empty(len(item), dtype=np.float32)
    step = min(2 * SMALLEST, len(query))
    for first in range(0, len(query), step):
        first = min(first, len(query) - step)  # the last product has as many rows as the others
        chosen = slice(*np.searchsorted(row, [first, first + step]))
        columns = item[chosen] - 1
        if not len(columns):
            continue
        padded = torch.from_numpy(np.resize(columns, max(len(columns), SMALLEST)))
        product = query[first : first + step] @ items.vectors[padded].T
        if items.bias is not None:
            product += items.bias[padded]
        scores[chosen] = product.numpy()[row[chosen] - first, np.arange(len(columns))]
    return scores


def divide_items(n_items: int) -> IdArray:
    """Divide items into tiles of almost the same width, and return the first column of each, and the end.

    >>> divide_items(2600).tolist()
    [0, 866, 1733, 2600]
    """
    n_tiles = max(1, -(-n_items // _TILE_ITEMS))
    return np.arange(n_tiles + 1) * n_items // n_tiles


def list_layers(row_of: IdArray) -> list[tuple[IdArray | None, IdArray | slice]]:
    """List the first target of each row, the second one, and so on, so that a layer has each row at most once.

    Args:
        row_of: [t] row of each target, sorted; each row has a target.

    Returns:
        Rows and targets of each layer; rows are None for the first one, which has them all.
    """
    first = np.flatnonzero(np.diff(row_of, prepend=-1))
    if len(first) == len(row_of):
        return [(None, slice(None))]
    place = np.arange(len(row_of)) - first[row_of]
    layers: list[tuple[IdArray | None, IdArray | slice]] = [(None, first)]
    for number in range(1, int(place.max()) + 1):
        chosen = np.flatnonzero(place == number)
        layers.append((row_of[chosen], chosen))
    return layers
