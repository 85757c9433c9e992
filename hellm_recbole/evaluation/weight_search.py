"""Search of the weights of combined scores on validation targets: all points of a grid in one pass over the users.

The scores of each term are computed once for a block of users. For each point of the grid, the terms are summed in
buffers that stay in the CPU cache, and the targets are ranked by the code of `ranking`, with the same masks and ties.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hellm_recbole.evaluation.combined_scores import Term, add_term
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import (
    MaskedItems,
    RankArray,
    Ranks,
    count_at_least,
    find_masked,
    refuse_nan,
    select_scores,
)
from hellm_recbole.types import FloatArray, Histories, IdArray, Targets

Point = tuple[float, ...]  # one weight for each term
_ROWS_AT_ONCE = 8  # users whose sums are made at a time; a buffer of 8 x 12,101 float32 is 0.4 MB and stays in cache


@dataclass(frozen=True)
class WeightSearch:
    """The outcome of a search.

    Attributes:
        weights: the best point; the first one of those that are equally good.
        values: [P] value of the metric at each point.
        ranks: validation ranks at the best point.
    """

    weights: Point
    values: npt.NDArray[np.float64]
    ranks: Ranks


def list_product(weights: Sequence[Sequence[float]]) -> list[Point]:
    """List every combination of the weights of each term; the last weight changes fastest.

    >>> list_product([[0.0, 1.0], [0.0, 2.0]])
    [(0.0, 0.0), (0.0, 2.0), (1.0, 0.0), (1.0, 2.0)]
    """
    return list(itertools.product(*weights))


def list_simplex(n_terms: int, steps: int) -> list[Point]:
    """List all weights that are multiples of 1 / steps and add up to 1; the last weight changes fastest.

    >>> list_simplex(2, 2)
    [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    """
    counts = (point for point in itertools.product(range(steps + 1), repeat=n_terms - 1) if sum(point) <= steps)
    return [tuple(count / steps for count in (*point, steps - sum(point))) for point in counts]


def search_weights(
    first: Term | None,
    terms: Sequence[Term],
    points: Sequence[Point],
    targets: Targets,
    history: Histories,
    *,
    block_users: int,
    cutoffs: Sequence[int],
    metric: str,
    who: str,
    report: Callable[[int], None] = lambda n_users: None,
) -> WeightSearch:
    """Rank the validation targets at every point, and choose the best point.

    The ranks of all P points are kept until the end: 8 P T bytes.

    Args:
        first: term without a weight; None if there is none.
        terms: K terms with weights.
        points: [P, K] weights; neighbouring points should share their first weights.
        targets: T validation targets, sorted by user.
        history: training part, which is the input of the terms and is masked.
        block_users: number of users whose terms are computed at a time.
        cutoffs: cut-offs of the metrics.
        metric: metric to maximise, "R@K" or "N@K".
        who: row and phase, for messages.
        report: function that is called with the number of users of each block when it is done.

    Raises:
        TrainingDiverged: a score is NaN.
    """
    ranks = np.zeros((2, len(points), len(targets)), dtype=np.int32)  # masked by `seen`, and not masked
    users, start_of = np.unique(targets.user, return_index=True)
    bounds = np.append(start_of, len(targets))
    for start in range(0, len(users), block_users):
        block = users[start : start + block_users]
        scores = [term.compute(block, history) for term in ([] if first is None else [first]) + [*terms]]
        for values in scores:
            refuse_nan(torch.from_numpy(values), block, who)
        for low in range(0, len(block), _ROWS_AT_ONCE):
            rows = slice(low, min(low + _ROWS_AT_ONCE, len(block)))
            at = bounds[start + rows.start : start + rows.stop + 1]
            own = slice(at[0], at[-1])
            row_of = np.repeat(np.arange(rows.stop - rows.start), np.diff(at))
            masked = find_masked(row_of, targets.item[own], block[rows], history)
            totals = _sum_terms([values[rows] for values in scores], first is not None, points)
            _rank_points(totals, row_of, targets.item[own], masked, out=ranks[:, :, own])
        report(len(block))
    per_point = np.array([average_metrics(targets.user, one, cutoffs)[metric] for one in ranks[0]])
    best = int(np.argmax(per_point))
    seen, none = ranks[:, best]
    return WeightSearch(points[best], per_point, Ranks(targets.user, targets.item, seen=seen, train=seen, none=none))


def _rank_points(
    totals: Iterator[FloatArray], row_of: IdArray, item: IdArray, masked: MaskedItems, *, out: RankArray
) -> None:
    """Rank the targets of some users at every point.

    Args:
        totals: [B, I] combined scores at each of P points.
        row_of: [t] row of the scores for each target.
        item: [t] item id of each target.
        masked: masked items of each target.
        out: [2, P, t] array for the ranks with and without a mask.
    """
    for number, total in enumerate(totals):
        target_score = select_scores(total, row_of, item)
        count = count_at_least(total, row_of, target_score)
        out[0, number] = count - masked.count_at_least(total, target_score)
        out[1, number] = count


def _sum_terms(scores: Sequence[FloatArray], has_first: bool, points: Sequence[Point]) -> Iterator[FloatArray]:
    """Yield the sum of the terms at each point; the sums of the first terms are kept while their weights stay the same.

    Args:
        scores: [B, I] scores of each term, of the one without a weight first.
        has_first: whether there is a term without a weight.
        points: [P, K] weights.
    """
    terms = scores[1:] if has_first else scores
    buffers = [np.empty_like(values) for values in terms]
    sums: list[FloatArray | None] = [scores[0] if has_first else None]  # entry k: the sum of the first k terms
    nothing = np.zeros_like(scores[0])
    before: Point = ()
    for point in points:
        same = next((k for k, (a, b) in enumerate(zip(before, point, strict=False)) if a != b), len(before))
        del sums[same + 1 :]
        for k in range(same, len(point)):
            total = sums[k]
            sums.append(add_term(total, terms[k], point[k], buffers[k]) if point[k] else total)
        before = point
        last = sums[-1]
        yield nothing if last is None else last
