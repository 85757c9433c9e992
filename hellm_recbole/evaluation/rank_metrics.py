"""MRR, hit rate and MAP from integer ranks; Recall and NDCG are in `metrics`.

All are means over the users that have a target, and all lie in [0, 1]. For a user with targets at the ranks
r_1 <= ... <= r_n among all candidates:

    MRR    = 1 / r_1
    MRR@K  = 1 / r_1 if r_1 <= K, else 0
    HR@K   = 1 if r_1 <= K, else 0
    MAP@K  = AP@K = sum over i with r_i <= K of i / r_i, divided by min(n, K)

With one target, `HR@K = Recall@K` and `MAP@K = MRR@K`. With several, these differ:

- MRR reads the best target only.
- HR@K asks for at least one target among the first K; Recall@K is the share of the targets. Some programs call Recall,
  or the number of hits divided by the number of all targets, "hit rate".
- MAP@K divides by min(n, K), so that a perfect list has 1, as in RecBole. trec_eval, ir-measures and ranx divide by n,
  which gives less where K < n.

Ties count against the model, as in `metrics`: of two targets with equal scores, both have the later rank. They count
one after the other in i, so that two tied targets at the top (ranks 2, 2) have an AP of (1/2 + 2/2) / 2 = 3/4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.config.metric_names import HR, MAP, MetricName

FloatVector = npt.NDArray[np.float64]


def compute_rank_metrics(
    user: npt.NDArray[Any], rank: npt.NDArray[np.integer[Any]], names: Sequence[MetricName]
) -> tuple[npt.NDArray[Any], dict[str, FloatVector]]:
    """Compute MRR, hit rate and MAP of each user, as defined at the top of this file.

    Args:
        user: [T] user of each target, as id or token, in any order.
        rank: [T] rank of each target among the candidates, counted from 1.
        names: metrics to compute.

    Returns:
        The users, [U] and sorted, and metric -> [U] value of each user.

    >>> names = [MetricName("MRR", None), MetricName("HR", 10), MetricName("MAP", 10)]
    >>> users, values = compute_rank_metrics(np.array([7, 7, 8]), np.array([4, 2, 30]), names)
    >>> {name: value.round(4).tolist() for name, value in values.items()}
    {'MRR': [0.5, 0.0333], 'HR@10': [1.0, 0.0], 'MAP@10': [0.5, 0.0]}
    """
    users, index, n_targets = np.unique(user, return_inverse=True, return_counts=True)
    order = np.lexsort((rank, index))
    owner, ranks = index[order], rank[order].astype(np.float64)
    starts = np.cumsum(n_targets) - n_targets
    place = np.arange(len(ranks)) - starts[owner] + 1  # 1 for the best target of a user, 2 for the next one
    first = ranks[starts]
    values: dict[str, FloatVector] = {}
    for name in names:
        k = np.inf if name.k is None else name.k
        if name.kind == HR:
            values[str(name)] = (first <= k).astype(np.float64)
        elif name.kind == MAP:
            precision = np.where(ranks <= k, place / ranks, 0.0)
            values[str(name)] = np.bincount(owner, precision, minlength=len(users)) / np.minimum(n_targets, k)
        else:
            values[str(name)] = np.where(first <= k, 1.0 / first, 0.0)
    return users, values
