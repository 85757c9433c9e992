"""The sparse matrix of interactions, users x items, which is the input of models that are fitted in closed form."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from hellm_recbole.types import Histories


def build_interactions(history: Histories, n_items: int) -> sp.csr_matrix:
    """Count how often each user has interacted with each item.

    >>> found = build_interactions(Histories.from_pairs(np.array([1, 1, 2]), np.array([2, 2, 1]), 2), 2)
    >>> found.toarray().tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 1.0, 0.0]]

    Args:
        history: interactions of all users.
        n_items: number of items I.

    Returns:
        [U + 1, I + 1] sparse float32 counts. Row 0 and column 0 (padding) are empty. Column indices are sorted.
    """
    shape = (history.n_users + 1, n_items + 1)
    counts = np.ones(len(history.items), dtype=np.float32)
    found = sp.csr_matrix((counts, (history.repeat_users(), history.items)), shape=shape)
    found.sort_indices()
    return found
