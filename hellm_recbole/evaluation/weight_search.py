"""Search of the weights of combined scores on validation targets: all points of a grid in one pass over the users.

The scores of each term are computed once for a block of users, and `point_ranks` ranks the targets of the block at all
points.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hellm_recbole.evaluation.combined_scores import Term
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.point_ranks import rank_points
from hellm_recbole.evaluation.ranking import Ranks, find_masked, refuse_nan
from hellm_recbole.types import Histories, Targets

Point = tuple[float, ...]  # one weight for each term


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
        points: [P, K] weights, at least 0; those with the same first weight are next to each other.
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
    grid = np.array(points, dtype=np.float32).reshape(len(points), len(terms))
    users, start_of = np.unique(targets.user, return_index=True)
    bounds = np.append(start_of, len(targets))
    for start in range(0, len(users), block_users):
        block = users[start : start + block_users]
        scores = [term.compute(block, history) for term in ([] if first is None else [first]) + [*terms]]
        for values in scores:
            refuse_nan(torch.from_numpy(values), block, who)
        own = slice(bounds[start], bounds[start + len(block)])
        row_of = np.repeat(np.arange(len(block)), np.diff(bounds[start : start + len(block) + 1]))
        item = targets.item[own]
        masked = find_masked(row_of, item, block, history)
        weighted = scores if first is None else scores[1:]
        ranks[:, :, own] = rank_points(None if first is None else scores[0], weighted, grid, row_of, item, masked)
        report(len(block))
    per_point = np.array([average_metrics(targets.user, one, cutoffs)[metric] for one in ranks[0]])
    best = int(np.argmax(per_point))
    seen, none = ranks[:, best]
    return WeightSearch(points[best], per_point, Ranks(targets.user, targets.item, seen=seen, train=seen, none=none))
