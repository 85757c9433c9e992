"""Recall and NDCG from integer ranks. All metrics in all tables are computed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatVector = npt.NDArray[np.float64]


def compute_per_user(
    user: npt.NDArray[Any], rank: npt.NDArray[np.integer[Any]], cutoffs: Sequence[int]
) -> tuple[npt.NDArray[Any], dict[str, FloatVector]]:
    """Compute Recall@K and NDCG@K of each user.

    For a user with n targets, `Recall@K = |{rank <= K}| / n` and `NDCG@K = DCG / IDCG`. Here
    `DCG = sum over targets with rank <= K of 1 / log2(rank + 1)`, and the ideal IDCG is the same sum over the ranks
    1, ..., min(n, K). RecBole has the same definitions. The released HeLLM pre-training code computes IDCG from the
    number of hits instead, which gives other values for n > 1.

    Args:
        user: [T] user of each target, as id or token, in any order.
        rank: [T] rank of each target among the candidates, counted from 1. Each target of a user has its own rank.
        cutoffs: cut-offs K.

    Returns:
        The users, [U] and sorted, and metric ("R@K" or "N@K") -> [U] value of each user.

    >>> users, values = compute_per_user(np.array([7, 7, 8]), np.array([1, 30, 3]), [10])
    >>> users.tolist(), values["R@10"].tolist(), values["N@10"].round(4).tolist()
    ([7, 8], [0.5, 1.0], [0.6131, 0.5])
    """
    users, user_index, n_targets = np.unique(user, return_inverse=True, return_counts=True)
    discount = 1.0 / np.log2(rank.astype(np.float64) + 1.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, min(max([*cutoffs, 1]), int(n_targets.max(initial=1))) + 2)))
    values: dict[str, FloatVector] = {}
    for k in cutoffs:
        hit = rank <= k
        values[f"R@{k}"] = np.bincount(user_index, weights=hit, minlength=len(users)) / n_targets
        dcg = np.bincount(user_index, weights=np.where(hit, discount, 0.0), minlength=len(users))
        values[f"N@{k}"] = dcg / ideal[np.minimum(n_targets, k) - 1]
    return users, values


def average_metrics(
    user: npt.NDArray[Any], rank: npt.NDArray[np.integer[Any]], cutoffs: Sequence[int]
) -> dict[str, float]:
    """Average the metrics of `compute_per_user` over all users that have a target.

    >>> average_metrics(np.array([1, 2]), np.array([1, 4]), [2])
    {'R@2': 0.5, 'N@2': 0.5}
    """
    _, values = compute_per_user(user, rank, cutoffs)
    return {name: float(value.mean()) for name, value in values.items()}
