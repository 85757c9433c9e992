"""The mean reciprocal rank, an example of a metric."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hellm_recbole.plugins.metrics import TargetRanks


def compute_mrr(ranks: TargetRanks, k: int) -> npt.NDArray[np.float64]:
    """Compute the reciprocal rank of each user's best target, 0 if it is not among the first K.

    Args:
        ranks: ranks of the T targets of one phase.
        k: cut-off K.

    Returns:
        [U] numbers, one for each user.

    >>> compute_mrr(TargetRanks(np.array([0, 0, 1]), np.array([4, 2, 30]), np.array([1, 1, 1]), 2, 99), 10).tolist()
    [0.5, 0.0]
    """
    best = np.full(ranks.n_users, np.inf)
    np.minimum.at(best, ranks.user, ranks.rank.astype(np.float64))
    return np.where(best <= k, 1.0 / best, 0.0)
