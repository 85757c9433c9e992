"""The k-core filter: every user and every item has at least k interactions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.columns import number_tokens
from hellm_recbole.data.manifest import Counts
from hellm_recbole.errors import DataError
from hellm_recbole.types import IdArray


def find_k_core(user: IdArray, item: IdArray, k_core: int) -> npt.NDArray[np.bool_]:
    """Find the k-core: drop users and items with fewer than `k_core` interactions, again and again, until none is left.

    >>> find_k_core(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 2]), 2)
    array([ True,  True,  True,  True, False])

    Args:
        user: [E] user ids.
        item: [E] item ids.
        k_core: smallest number of interactions of a user and of an item.

    Returns:
        [E] whether the interaction is in the k-core.
    """
    remaining = np.arange(len(user))
    while True:
        enough = (np.bincount(user[remaining])[user[remaining]] >= k_core) & (
            np.bincount(item[remaining])[item[remaining]] >= k_core
        )
        if enough.all():
            mask = np.zeros(len(user), dtype=np.bool_)
            mask[remaining] = True
            return mask
        remaining = remaining[enough]


def filter_k_core(data: AtomicData, k_core: int, name: str) -> AtomicData:
    """Return the k-core of a dataset.

    Args:
        data: tables of the dataset.
        k_core: k of the filter; 0 keeps everything.
        name: name of the dataset, for messages.

    Raises:
        DataError: no interaction is left.
    """
    user, item = (number_tokens(data.inter[column])[0] for column in ("user_id", "item_id"))
    mask = find_k_core(user, item, k_core)
    if not mask.any():
        raise DataError(
            f"dataset {name}: the {k_core}-core filter drops all {len(mask)} interactions; choose a lower --k-core"
        )
    kept = data.inter if mask.all() else data.inter[mask]
    return replace(data, inter=kept.reset_index(drop=True))


def report_dropped(k_core: int, before: Counts, after: Counts) -> list[str]:
    """Return a sentence about what the filter dropped, or nothing if it dropped nothing."""
    if before == after:
        return []
    interactions, users, items = (
        f"{had - has:,} of {had:,} {name}"
        for name, had, has in (
            ("interactions", before.interactions, after.interactions),
            ("users", before.users, after.users),
            ("items", before.items, after.items),
        )
    )
    return [f"the {k_core}-core filter dropped {interactions}, {users} and {items}; --k-core 0 keeps all"]
