"""Ranks of scores that are a product of vectors, screened by a product in bfloat16. The ranks are those of float32.

A product in bfloat16 tells for most items on which side of the target they are. The others are computed again. With
q and v as the vectors of a user and an item (a bias is one more column: 1 beside q, the bias beside v), q' and v' as
the same in bfloat16, D as their width, s as the score in float32 and p as the screening product before it is rounded:

    |s - p| <= |q - q'| |v| + |q'| |v - v'|     Cauchy-Schwarz: (q - q') v + q' (v - v')
             + (D + 3) 2^-22 |q'| |v'|          sums in float32, in any order, also by units that truncate
             + (D + 3) 2^-24 1.1 |q| |v|        rounding of s itself
             =: E

The norms of the differences are measured, not bounded by the precision, which makes E three times smaller. Rounding to
bfloat16 is monotone and changes a number x by at most 2^-8 |x|. So for a target with score t, an item with p rounded
below (t - E) - 2^-8 |t - E| is below the target, and one above (t + E) + 2^-8 |t + E| is above it.

The items between are multiplied in float32 in any order, where the bound is (D + 3) 2^-23 1.1 |q| |v|. Items that are
still too near, such as all tied ones, get the score of float32 itself, as `product_ranks.score_pairs` computes it.
Where they are many, the whole tile is computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hellm_recbole.evaluation.product_ranks import (
    ItemVectors,
    Scored,
    TileRanker,
    divide_items,
    list_layers,
    score_pairs,
)
from hellm_recbole.types import FloatArray, IdArray

_ROUNDING = 2.0**-8  # largest relative error of a number in bfloat16
_LARGEST_PART = 8  # a tile of which more than this part is near its targets is computed in float32
_CHUNK_PAIRS = 2**14
_TINY = 1e-30  # absolute part of the bound, for numbers so small that units replace them by 0

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rounded:
    """Vectors with their bias column, the same in bfloat16, and the norms that the bound needs.

    Attributes:
        exact: [N, D] float32 vectors.
        rounded: [N, D] the same in bfloat16.
        norm: [N] norms of the vectors.
        rounded_norm: [N] norms of the rounded vectors.
        error: [N] norms of the differences.
    """

    exact: Tensor
    rounded: Tensor
    norm: Vector
    rounded_norm: Vector
    error: Vector

    @staticmethod
    def build(vectors: Tensor, column: Tensor | None) -> Rounded:
        """Round vectors to bfloat16, with a further column if it is given."""
        exact = vectors if column is None else torch.cat([vectors, column.unsqueeze(1)], dim=1)
        rounded = exact.bfloat16()
        back = rounded.double()
        norms = [values.norm(dim=1).numpy() * 1.001 for values in (exact.double(), back, exact.double() - back)]
        return Rounded(exact, rounded, *norms)


class ScreeningRanker(TileRanker):
    """Counts scores tile by tile, most of them by a product in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self._of: ItemVectors | None = None
        self._items: Rounded

    def score(
        self, query: Tensor, items: ItemVectors, row_of: IdArray, item: IdArray, pair_row: IdArray, pair_item: IdArray
    ) -> Scored | None:
        """Compute the scores of some pairs, and count for each target the items with a score at least as high.

        Where a score may be infinite or NaN, or the product does not compute a score alike in a tile and alone, all is
        computed in float32; see `product_ranks.TileRanker.score`.
        """
        target = score_pairs(query, items, row_of, item)
        if items.may_be_nan(query) or not self._agrees(query, items, row_of, item, target):
            return super().score(query, items, row_of, item, pair_row, pair_item)
        if self._of is not items:
            self._of, self._items = items, Rounded.build(items.vectors, items.bias)
        users = Rounded.build(query, None if items.bias is None else torch.ones(len(query)))
        count = np.zeros(len(item), dtype=np.int64)
        near: list[tuple[IdArray, IdArray]] = []  # targets, and columns of items that are too near
        for start, stop in pairwise(divide_items(len(items.vectors)).tolist()):
            screened = torch.mm(users.rounded, self._items.rounded[start:stop].T).float().numpy()
            for rows, chosen in list_layers(row_of):
                index = np.arange(len(item))[chosen]
                low, high = self._bound(users, row_of[index], target[index], start, stop)
                scores = screened if rows is None else screened[rows]
                above = self._counter.count(scores, np.nextafter(high, np.float32(np.inf)))
                between = self._counter.count(scores, low) - above
                if between.sum() * _LARGEST_PART > scores.size:
                    exact = self._multiply(query, items, start, stop)
                    count[index] += self._counter.count(exact if rows is None else exact[rows], target[index])
                    continue
                count[index] += above
                place, column = np.nonzero((scores >= low[:, None]) & (scores <= high[:, None]))
                near += self._refine(users, row_of, target, index[place], column + start, count)
        for chosen, column in near:
            order = np.argsort(chosen, kind="stable")
            chosen, column = chosen[order], column[order]
            value = score_pairs(query, items, row_of[chosen], column + 1)
            np.add.at(count, chosen, value >= target[chosen])
        order = np.argsort(pair_row, kind="stable")
        other = np.empty(len(pair_row), dtype=target.dtype)
        other[order] = score_pairs(query, items, pair_row[order], pair_item[order])
        return Scored(target, count, other)

    def _agrees(self, query: Tensor, items: ItemVectors, row_of: IdArray, item: IdArray, target: FloatArray) -> bool:
        """Return whether targets have the same score in a tile as alone; the tile of the first target is compared."""
        starts = divide_items(len(items.vectors))
        tile = int(np.searchsorted(starts, item[0] - 1, side="right")) - 1
        start, stop = int(starts[tile]), int(starts[tile + 1])
        inside = (item > start) & (item <= stop)
        scores = self._multiply(query, items, start, stop)
        return np.array_equal(scores[row_of[inside], item[inside] - 1 - start], target[inside])

    def _bound(
        self, users: Rounded, row: IdArray, target: FloatArray, start: int, stop: int
    ) -> tuple[FloatArray, FloatArray]:
        """Bound the screened scores of items that may be on either side of each target, [t] from and [t] to."""
        norm, error = self._items.norm[start:stop].max(), self._items.error[start:stop].max()
        terms = users.exact.shape[1] + 3
        bound = users.error[row] * norm + users.rounded_norm[row] * error + _TINY * (1 + users.norm[row]) * (1 + norm)
        bound += terms * 2.0**-22 * users.rounded_norm[row] * (norm + error)
        bound += terms * 2.0**-24 * 1.1 * users.norm[row] * norm
        low, high = target - bound, target + bound
        low, high = low - 1.01 * _ROUNDING * np.abs(low), high + 1.01 * _ROUNDING * np.abs(high)
        return (
            np.nextafter(low.astype(np.float32), np.float32(-np.inf)),
            np.nextafter(high.astype(np.float32), np.float32(np.inf)),
        )

    def _refine(
        self, users: Rounded, row_of: IdArray, target: FloatArray, chosen: IdArray, column: IdArray, count: IdArray
    ) -> list[tuple[IdArray, IdArray]]:
        """Compare items with their targets in float32, and count those that are above them for sure.

        Args:
            users: user vectors.
            row_of: [t] row of each target.
            target: [t] score of each target.
            chosen: [P] target that each item is compared with.
            column: [P] column of the item.
            count: [t] counts to add to.

        Returns:
            Targets and columns of the items that are still too near, in chunks.
        """
        near, factor = [], (users.exact.shape[1] + 3) * 2.0**-23 * 1.1
        for first in range(0, len(chosen), _CHUNK_PAIRS):
            one, where = chosen[first : first + _CHUNK_PAIRS], column[first : first + _CHUNK_PAIRS]
            row = row_of[one]
            left, right = users.exact[torch.from_numpy(row)], self._items.exact[torch.from_numpy(where)]
            gap = (left * right).sum(dim=1).double().numpy() - target[one]
            bound = factor * users.norm[row] * self._items.norm[where] + _TINY
            np.add.at(count, one[gap > bound], 1)
            close = np.abs(gap) <= bound
            if close.any():
                near.append((one[close], where[close]))
        return near
