"""The rules of the splits: from interactions in time order to the part of each, as indices in PARTS.

They only divide. `named` then leaves out targets that cannot be evaluated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.split import MIN_EVALUATED, TEST, TRAIN, VALID
from hellm_recbole.types import IdArray, TokenArray


def take_share(share: float, count: int) -> int:
    """Take a share of a number, rounded down. The share is the decimal number that was written, without binary errors.

    >>> take_share(0.1, 30), take_share(0.29, 100), take_share(0.1, 9)
    (3, 29, 0)
    """
    return int(Fraction(str(share)) * count)


def divide_by_ratio(user: IdArray, n_users: int, valid_share: float, test_share: float) -> tuple[IdArray, int]:
    """Divide each user's interactions by shares; the latest are for test, those before them for validation.

    Shares are rounded down. A user with at least three interactions has at least one test target, and at least one
    validation target if a training interaction is left. RecBole's split `RS` grouped by user does the same.

    >>> divide_by_ratio(np.array([1] * 5 + [2] * 2), 2, 0.2, 0.4)
    (array([0, 0, 1, 2, 2, 0, 0]), 1)

    Args:
        user: [E] user ids of interactions sorted by user, then time.
        n_users: number of users, U.
        valid_share: share of the validation part.
        test_share: share of the test part.

    Returns:
        [E] index in PARTS of each interaction; number of users with too few interactions to be evaluated.
    """
    counts = np.bincount(user, minlength=n_users + 1)
    sizes = np.zeros(
        (2, counts.max(initial=0) + 1), dtype=np.int64
    )  # of validation and test, by number of interactions
    for count in range(MIN_EVALUATED, sizes.shape[1]):
        n_valid, n_test = take_share(valid_share, count), take_share(test_share, count)
        n_test = 1 if n_test == 0 and count - n_valid > 1 else n_test
        n_valid = 1 if n_valid == 0 and count - n_test > 1 else n_valid
        sizes[:, count] = n_valid, n_test
    n_valid_of, n_test_of = sizes[:, counts[user]]
    from_end = np.cumsum(counts)[user] - 1 - np.arange(len(user))  # 0 for a user's last interaction
    part = np.where(from_end < n_test_of, TEST, np.where(from_end < n_test_of + n_valid_of, VALID, TRAIN))
    return part.astype(np.int64), int(np.sum((counts[1:] > 0) & (counts[1:] < MIN_EVALUATED)))


def find_cuts(time: npt.NDArray[Any], valid_share: float, test_share: float) -> tuple[Any, Any]:
    """Find the two instants that cut a time line by shares: the first instants of validation and of test.

    The latest `test_share` of the interactions, rounded down and at least one, are for test; the cut is the time of
    the first of these, so interactions at the same time are for test, too.

    >>> find_cuts(np.array([5, 1, 2, 2, 3, 4, 4, 6, 7, 8]), 0.2, 0.1)
    (6, 8)

    Args:
        time: [E] times, in any order.
        valid_share: share of the validation part.
        test_share: share of the test part.
    """
    ordered = np.sort(time)
    n_test = max(take_share(test_share, len(time)), 1)
    n_valid = max(take_share(valid_share, len(time)), 1)
    return ordered[max(len(time) - n_test - n_valid, 0)].item(), ordered[len(time) - n_test].item()


def divide_by_time(time: npt.NDArray[Any], valid_from: Any, test_from: Any) -> IdArray:
    """Divide interactions by two instants, which belong to the later part.

    >>> divide_by_time(np.array([3, 1, 2, 5]), 2, 3)
    array([2, 0, 1, 2])

    Args:
        time: [E] times.
        valid_from: first instant of validation.
        test_from: first instant of test.
    """
    return np.where(time >= test_from, TEST, np.where(time >= valid_from, VALID, TRAIN)).astype(np.int64)


def draw_cold_items(tokens: Sequence[str] | TokenArray, valid_share: float, test_share: float, seed: int) -> IdArray:
    """Draw the items whose interactions are targets.

    Items are ordered by the SHA-256 of seed and token, which is as good as random and depends neither on the order of
    items in the file nor on the version of a library. The first are for test, the next for validation.

    >>> draw_cold_items(["a", "b", "c", "d", "e"], 0.2, 0.2, 1).tolist()
    [0, 0, 2, 1, 0]

    Args:
        tokens: [I] tokens of the items.
        valid_share: share of the items for validation, rounded down, at least one.
        test_share: share of the items for test, rounded down, at least one.
        seed: random seed.

    Returns:
        [I] index in PARTS of each item.
    """
    digests = [hashlib.sha256(f"{seed}\t{token}".encode()).hexdigest() for token in tokens]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    n_test, n_valid = (max(take_share(share, len(digests)), 1) for share in (test_share, valid_share))
    part = np.full(len(digests), TRAIN, dtype=np.int64)
    part[order[:n_test]] = TEST
    part[order[n_test : n_test + n_valid]] = VALID
    return part
