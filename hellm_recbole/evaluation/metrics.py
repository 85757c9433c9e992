"""Recall and NDCG from integer ranks. Every number of every table is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatVector = npt.NDArray[np.float64]


def compute_per_user(
    user: npt.NDArray[Any], rank: npt.NDArray[np.integer[Any]], cutoffs: Sequence[int]
) -> tuple[npt.NDArray[Any], dict[str, FloatVector]]:
    """Recall@K and NDCG@K of each user.

    With T targets of a user: `Recall@K = |{rank <= K}| / T` and `NDCG@K = DCG / IDCG`, where
    `DCG = sum over targets with rank <= K of 1 / log2(rank + 1)` and the ideal IDCG sums over min(T, K) places. RecBole
    defines both alike; the released HeLLM pre-training code builds IDCG from the hits found, which differs for T > 1.

    Args:
        user: [T] user of each target: ids or tokens, in any order.
        rank: [T] rank of each target among the candidates, from 1. Targets of one user have ranks of their own.
        cutoffs: the K.

    Returns:
        [n] the users, sorted, and for each of "R@K", "N@K" an [n] array.

    >>> users, values = compute_per_user(np.array([7, 7, 8]), np.array([1, 30, 3]), [10])
    >>> users.tolist(), values["R@10"].tolist(), values["N@10"].round(4).tolist()
    ([7, 8], [0.5, 1.0], [0.6131, 0.5])
    """
    users, row, n_targets = np.unique(user, return_inverse=True, return_counts=True)
    discount = 1.0 / np.log2(rank.astype(np.float64) + 1.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, min(max([*cutoffs, 1]), int(n_targets.max(initial=1))) + 2)))
    values: dict[str, FloatVector] = {}
    for k in cutoffs:
        hit = rank <= k
        values[f"R@{k}"] = np.bincount(row, weights=hit, minlength=len(users)) / n_targets
        dcg = np.bincount(row, weights=np.where(hit, discount, 0.0), minlength=len(users))
        values[f"N@{k}"] = dcg / ideal[np.minimum(n_targets, k) - 1]
    return users, values


def average_metrics(
    user: npt.NDArray[Any], rank: npt.NDArray[np.integer[Any]], cutoffs: Sequence[int]
) -> dict[str, float]:
    """Means of `compute_per_user` over the users with a target.

    >>> average_metrics(np.array([1, 2]), np.array([1, 4]), [2])
    {'R@2': 0.5, 'N@2': 0.5}
    """
    _, values = compute_per_user(user, rank, cutoffs)
    return {name: float(value.mean()) for name, value in values.items()}
