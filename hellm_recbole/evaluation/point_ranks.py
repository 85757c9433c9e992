"""Ranks of targets at many points of weights: combined scores are made for each point, but not for all items.

With the first weight of a point fixed, an item and the target differ by a number between two bounds: the difference so
far, plus for each further term the least and the largest that its weights can add. If the upper bound is below 0, the
item never counts; if the lower bound is above 0, it always counts. Only the other items, most often a few hundred, are
summed at each point, by the same operations in the same order as in `combined_scores`. The ranks are therefore those of
`ranking`, ties included. The bounds have a margin for rounding errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hellm_recbole.evaluation.combined_scores import add_term
from hellm_recbole.evaluation.ranking import MaskedItems, RankArray, count_at_least, select_scores
from hellm_recbole.types import FloatArray, IdArray

_ROUNDINGS = 16  # for each term; a sum of K terms rounds 2 K times, the bounds of a difference about 4 K times


def rank_points(
    first: FloatArray | None,
    terms: Sequence[FloatArray],
    points: FloatArray,
    row_of: IdArray,
    item: IdArray,
    masked: MaskedItems,
) -> RankArray:
    """Rank the targets of a block at every point.

    Args:
        first: [B, I] scores of the term without a weight; None if there is none.
        terms: K arrays [B, I], the scores of the terms with weights.
        points: [P, K] float32 weights, at least 0. Points with the same first weight are next to each other.
        row_of: [t] row of the scores for each target.
        item: [t] item id of each target.
        masked: masked items of each target.

    Returns:
        [2, P, t] int32 ranks with and without a mask.
    """
    if not all(np.isfinite(values).all() for values in ([] if first is None else [first]) + [*terms]):
        return _rank_all_items(first, terms, points, row_of, item, masked)
    ranks = np.empty((2, len(points), len(item)), dtype=np.int32)
    bounds = np.searchsorted(masked.target, np.arange(len(item) + 1))
    for number, (row, one) in enumerate(zip(row_of.tolist(), item.tolist(), strict=True)):
        hidden = masked.item[bounds[number] : bounds[number + 1]] - 1
        own = None if first is None else first[row]
        ranks[:, :, number] = _rank_target(own, [values[row] for values in terms], points, one - 1, hidden)
    return ranks


def _rank_all_items(
    first: FloatArray | None,
    terms: Sequence[FloatArray],
    points: FloatArray,
    row_of: IdArray,
    item: IdArray,
    masked: MaskedItems,
) -> RankArray:
    """Rank the targets with sums of all items, for scores that are not all finite; see `rank_points`."""
    ranks = np.empty((2, len(points), len(item)), dtype=np.int32)
    for number, point in enumerate(points.tolist()):
        total = first
        for values, weight in zip(terms, point, strict=True):
            total = add_term(total, values, weight, np.empty_like(values)) if weight else total
        total = np.zeros_like(terms[0]) if total is None else total
        target_score = select_scores(total, row_of, item)
        count = count_at_least(total, row_of, target_score)
        ranks[:, number] = count - masked.count_at_least(total, target_score), count
    return ranks


def _rank_target(
    first: FloatArray | None, terms: Sequence[FloatArray], points: FloatArray, target: int, hidden: IdArray
) -> RankArray:
    """Rank one target at every point.

    Args:
        first: [I] scores of the term without a weight; None if there is none.
        terms: K arrays [I], the scores of the terms with weights.
        points: [P, K] float32 weights.
        target: column of the target.
        hidden: columns of the masked items.

    Returns:
        [2, P] ranks with and without a mask.
    """
    rest, largest = terms[1:], points.max(axis=0)
    low, high = np.zeros_like(terms[0]), np.zeros_like(terms[0])
    for values, weight in zip(rest, largest[1:], strict=True):
        gap = (values - values[target]) * weight
        high += np.maximum(gap, 0)
        low += np.minimum(gap, 0)
    scale = sum(float(np.abs(values).max()) * weight for values, weight in zip(terms, largest.tolist(), strict=True))
    scale += 0.0 if first is None else float(np.abs(first).max())
    margin = np.float32(_ROUNDINGS * len(terms) * np.finfo(np.float32).eps * scale)
    ranks = np.empty((2, len(points)), dtype=np.int32)
    starts = [0, *(np.flatnonzero(np.diff(points[:, 0])) + 1).tolist(), len(points)]
    for start, stop in pairwise(starts):
        group = slice(start, stop)
        base = _add_first_term(first, terms[0], float(points[start, 0]))
        gap = base - base[target]
        always = gap + low > margin
        columns = np.flatnonzero((gap + high >= -margin) & ~always)
        sums = _sum_columns(base, rest, points[group, 1:], columns)
        target_score = sums[:, np.searchsorted(columns, target), None]
        count = np.count_nonzero(always) + np.count_nonzero(sums >= target_score, axis=1)
        masked = _sum_columns(base, rest, points[group, 1:], hidden) >= target_score
        ranks[0, group], ranks[1, group] = count - np.count_nonzero(masked, axis=1), count
    return ranks


def _add_first_term(first: FloatArray | None, values: FloatArray, weight: float) -> FloatArray:
    """Add the first term with a weight, [I]."""
    if weight:
        return add_term(first, values, weight, np.empty_like(values))
    return np.zeros_like(values) if first is None else first


def _sum_columns(
    base: FloatArray, terms: Sequence[FloatArray], points: npt.NDArray[np.float32], columns: IdArray
) -> FloatArray:
    """Sum some columns at several points.

    Args:
        base: [I] sum of the first terms.
        terms: arrays [I], the scores of the other terms.
        points: [P, K - 1] their weights.
        columns: [N] columns to sum.

    Returns:
        [P, N] sums. A weight of 0 adds exactly 0.
    """
    total: FloatArray = np.repeat(base[columns][None], len(points), axis=0)
    for values, weight in zip(terms, points.T, strict=True):
        total += weight[:, None] * values[columns]
    return total
