"""Ranks under other rules for ties, from the same scores and candidates as `ranking`.

A target with `h` candidates of a higher score and `e` candidates of an equal score, itself included, has some place
from `h + 1` to `h + e`. The rule `pessimistic` takes the last of them, which is the rank of all tables; `optimistic`
takes the first; `random` is the expected metric if all orders of the tied candidates are equally likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from hellm_recbole.evaluation import metrics
from hellm_recbole.evaluation.metrics import FloatVector
from hellm_recbole.evaluation.ranking import (
    MaskedItems,
    RankArray,
    count_at_least,
    find_masked,
    refuse_nan,
    select_scores,
)
from hellm_recbole.types import Histories, IdArray, Scorer, Targets

TieRule = Literal["pessimistic", "optimistic", "random"]


@dataclass(frozen=True)
class TieRanks:
    """First and last place of each target among the candidates with its score, with the history of the phase masked.

    Attributes:
        user: [T] user ids of the targets.
        item: [T] item ids of the targets.
        first: [T] first place.
        last: [T] last place, which is the rank of `ranking.rank_targets` under the policy `seen`.
    """

    user: IdArray
    item: IdArray
    first: RankArray
    last: RankArray

    @property
    def tied_frac(self) -> float:
        """Share of the targets whose score another candidate has, too."""
        return float(np.mean(self.last > self.first)) if len(self.first) else 0.0


@torch.no_grad()
def rank_ties(scorer: Scorer, targets: Targets, *, seen: Histories, block_users: int, who: str) -> TieRanks:
    """Rank every target among all items, with ties for and against it.

    Args:
        scorer: scorer of the model.
        targets: T (user, item) pairs, sorted by user.
        seen: history of the phase, which is masked and which the model reads.
        block_users: number of users whose scores are computed together.
        who: model and phase, for the error message.

    Raises:
        TrainingDiverged: a score is NaN.
    """
    scorer.prepare()
    first, last = (np.zeros(len(targets), dtype=np.int32) for _ in range(2))
    users, starts = np.unique(targets.user, return_index=True)
    bounds = np.append(starts, len(targets))
    for start in range(0, len(users), block_users):
        block = users[start : start + block_users]
        chosen = slice(bounds[start], bounds[start + len(block)])
        row_of = np.repeat(np.arange(len(block)), np.diff(bounds[start : start + len(block) + 1]))
        scores = scorer.compute_scores(block, seen)
        refuse_nan(scores, block, who)
        matrix: Any = scores.numpy() if scores.device.type == "cpu" else scores
        masked = find_masked(row_of, targets.item[chosen], block, seen)
        own = select_scores(matrix, row_of, targets.item[chosen])
        last[chosen] = count_at_least(matrix, row_of, own) - masked.count_at_least(matrix, own)
        first[chosen] = _count_higher(matrix, row_of, own, masked) + 1
    return TieRanks(targets.user, targets.item, first, last)


def _count_higher(matrix: Any, row_of: IdArray, own: npt.NDArray[np.float32], masked: MaskedItems) -> IdArray:
    """Count the candidates with a higher score, [t]: those with at least the next number that float32 has."""
    above = np.nextafter(own, np.float32(np.inf))
    higher: IdArray = count_at_least(matrix, row_of, above) - masked.count_at_least(matrix, above)
    return np.where(np.isposinf(own), 0, higher)  # nothing is higher, and the next number is infinity again


def place_optimistically(ranks: TieRanks) -> RankArray:
    """Return the [T] best places that the targets can have together: tied targets of one user follow each other."""
    keys = np.stack([ranks.user, ranks.first.astype(np.int64), ranks.last.astype(np.int64)], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.ravel()
    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], group[order])
    earlier = np.empty(len(order), dtype=np.int32)
    earlier[order] = np.arange(len(order)) - start
    places: npt.NDArray[np.int32] = np.minimum(ranks.first + earlier, ranks.last).astype(np.int32)
    return places


def compute_under_rule(
    user: npt.NDArray[Any], ranks: TieRanks, rule: TieRule, cutoffs: Sequence[int]
) -> dict[str, FloatVector]:
    """Compute Recall@K and NDCG@K of each user under a rule for ties.

    Args:
        user: [T] user of each target, as id or token.
        ranks: places of the targets.
        rule: rule for ties.
        cutoffs: cut-offs K.

    Returns:
        Metric ("R@K" or "N@K") -> [U] value of each user, users sorted.

    >>> ranks = TieRanks(np.array([1]), np.array([5]), np.array([1], np.int32), np.array([4], np.int32))
    >>> [compute_under_rule(ranks.user, ranks, rule, [2])["R@2"].item() for rule in ("optimistic", "random")]
    [1.0, 0.5]
    """
    if rule == "pessimistic":
        return metrics.compute_per_user(user, ranks.last, cutoffs)[1]
    if rule == "optimistic":
        return metrics.compute_per_user(user, place_optimistically(ranks), cutoffs)[1]
    users, index, n_targets = np.unique(user, return_inverse=True, return_counts=True)
    n_tied = (ranks.last - ranks.first + 1).astype(np.float64)
    values: dict[str, FloatVector] = {}
    for k in cutoffs:
        gains = np.append(0.0, np.cumsum(1.0 / np.log2(np.arange(2, k + 2))))  # of the first 0, 1, ..., K places
        start, stop = np.minimum(ranks.first - 1, k), np.minimum(ranks.last, k)
        hits = np.bincount(index, weights=(stop - start) / n_tied, minlength=len(users))
        tied = (gains[stop] - gains[start]) / n_tied
        alone = np.where(ranks.last <= k, 1.0 / np.log2(ranks.last + 1.0), 0.0)  # exactly as `metrics` computes it
        dcg = np.bincount(index, weights=np.where(n_tied == 1, alone, tied), minlength=len(users))
        values[f"R@{k}"], values[f"N@{k}"] = hits / n_targets, dcg / gains[np.minimum(n_targets, k)]
    return values
