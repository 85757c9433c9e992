"""A split by parts of each user's interactions, an example of a split."""

from __future__ import annotations

import numpy as np

from hellm_recbole.plugins.splits import TEST, TRAIN, VALID, Interactions
from hellm_recbole.types import IdArray


def split_last_tenths(interactions: Interactions) -> IdArray:
    """Take the last tenth of each user's interactions for test, and the tenth before it for validation.

    A tenth is rounded down and is at least one interaction. Users with fewer than three interactions are only in
    training.

    Args:
        interactions: E interactions, sorted by user and time.

    Returns:
        [E] part of each interaction.

    >>> user = np.ones(20, dtype=np.int64)
    >>> split_last_tenths(Interactions(user, user, None, 1, 1)).tolist()[14:]
    [0, 0, 1, 1, 2, 2]
    """
    counts = np.bincount(interactions.user, minlength=interactions.n_users + 1)[interactions.user]
    tenth, from_end = np.maximum(counts // 10, 1), interactions.count_from_end()
    part = np.where(from_end < tenth, TEST, np.where(from_end < 2 * tenth, VALID, TRAIN))
    return np.where(counts < 3, TRAIN, part)
