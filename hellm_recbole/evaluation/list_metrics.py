"""Metrics of top-K lists: what is recommended, whatever the users then chose. No target is read.

L_u is the list of user u, its first K candidates; U is the number of users with a list and I the number of items; c_i
counts the training interactions of item i.

    Coverage@K = |union of all L_u| / I
    Gini@K     = sum over j = 1..I of (2 j - I - 1) m_(j) / (I * sum of m)
    Novelty@K  = mean over users and over the items of their list of -log2(max(n_i, 1) / N)
    ARP@K      = mean over users and over the items of their list of c_i
    PopLift@K  = mean over users of ARP_u@K / h_u - 1
    ILD@K      = mean over users of the mean over pairs of items of their list of 1 - cos(f_i, f_j)

- Coverage: catalogue coverage (Ge et al., RecSys 2010). A larger K and more users raise it.
- Gini: m_(1) <= ... <= m_(I) count how often each item is listed; items that are never listed count 0. It is 0 if all
  items are listed equally often, and 1 - 1/I if one item alone is listed. RecBole has this form, but counts its padding
  as an item, in coverage, too. Castells, Hurley and Vargas (Recommender Systems Handbook) divide by I - 1.
- Novelty: mean self-information (Zhou et al., PNAS 2010). n_i is the number of users who have item i in training and N
  the number of users with a training part. An item that nobody has counts as if one user had it.
- ARP: average recommendation popularity (Yin et al., VLDB 2012); RecBole's AveragePopularity.
- PopLift: h_u is the mean of c_i over the training interactions of user u. 0 means that lists are as popular as
  histories. The popularity lift of Abdollahpouri et al. (RecSys 2020) divides means over a group of users; this is the
  mean of each user's ratio, so that rows can be compared user by user. A user without training part has no value.
- ILD: intra-list diversity (Ziegler et al., WWW 2005; Vargas and Castells, RecSys 2011) by the features of one
  modality. Items without features of their own are left out; a list with fewer than two others has the value 0.

Means over a list run over its items, also where a user has fewer than K candidates. Means over users give every user
the same weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.types import BoolArray, FloatArray, Histories, IdArray

FloatVector = npt.NDArray[np.float64]
_BLOCK_ENTRIES = 2**22  # feature values in memory at one time: 32 MiB


@dataclass(frozen=True)
class TopLists:
    """Top-K lists of U users.

    Attributes:
        user: [N] index of the user of each entry, 0..U-1, ascending.
        rank: [N] position in the user's list, from 1.
        item: [N] item id, 1..I. No item is twice in a list.
        n_users: number of users U; each has at least one entry.
        n_items: number of items I.
    """

    user: IdArray
    rank: IdArray
    item: IdArray
    n_users: int
    n_items: int

    def cut(self, k: int) -> TopLists:
        """Return the first k entries of each list."""
        kept = self.rank <= k
        return replace(self, user=self.user[kept], rank=self.rank[kept], item=self.item[kept])

    def average_by_user(self, values: npt.NDArray[Any]) -> FloatVector:
        """Average [I + 1] values of items over the list of each user, [U].

        >>> lists = TopLists(np.array([0, 0, 1]), np.array([1, 2, 1]), np.array([1, 2, 2]), 2, 3)
        >>> lists.average_by_user(np.array([0, 10, 30, 50])).tolist()
        [20.0, 30.0]
        """
        sums = np.bincount(self.user, weights=values[self.item], minlength=self.n_users)
        mean: FloatVector = sums / np.bincount(self.user, minlength=self.n_users)
        return mean


@dataclass(frozen=True)
class ItemCounts:
    """Counts of the training part.

    Attributes:
        interactions: [I + 1] training interactions of each item, c; entry 0 is 0.
        users: [I + 1] users who have the item in training, n; entry 0 is 0.
        n_users: number of users with a training part, N.
        profile: [U + 1] by user id: mean of c over the user's training interactions, h; NaN without any.
    """

    interactions: IdArray
    users: IdArray
    n_users: int
    profile: FloatVector


def count_items(train: Histories, n_items: int) -> ItemCounts:
    """Count the training part; a user who repeats an item counts once in `users`.

    >>> counts = count_items(Histories.from_pairs(np.array([1, 1, 1, 2]), np.array([5, 5, 6, 5]), 3), 6)
    >>> counts.interactions[5:].tolist(), counts.users[5:].tolist(), counts.n_users, counts.profile[1:].tolist()
    ([3, 1], [2, 1], 2, [2.3333333333333335, 3.0, nan])
    """
    owner, width = train.repeat_users(), n_items + 1
    interactions = np.bincount(train.items, minlength=width)
    distinct = np.unique(owner * width + train.items) % width
    lengths = np.bincount(owner, minlength=train.n_users + 1)
    sums = np.bincount(owner, weights=interactions[train.items], minlength=train.n_users + 1)
    profile = np.divide(sums, lengths, out=np.full(len(sums), np.nan), where=lengths > 0)
    users = np.bincount(distinct, minlength=width)
    return ItemCounts(interactions, users, int(np.count_nonzero(lengths)), profile)


def compute_coverage(lists: TopLists) -> float:
    """Compute the share of all items that are in a list.

    >>> compute_coverage(TopLists(np.array([0, 0, 1]), np.array([1, 2, 1]), np.array([1, 2, 2]), 2, 4))
    0.5
    """
    return len(np.unique(lists.item)) / lists.n_items


def compute_gini(lists: TopLists) -> float:
    """Compute the Gini index of how often the items are listed: 0 is equal.

    >>> compute_gini(TopLists(np.array([0, 1, 2]), np.array([1, 1, 1]), np.array([2, 2, 2]), 3, 4))
    0.75
    """
    listed = np.sort(np.bincount(lists.item, minlength=lists.n_items + 1)[1:])
    weights = 2 * np.arange(1, lists.n_items + 1) - lists.n_items - 1
    return float(np.sum(weights * listed) / (lists.n_items * np.sum(listed)))


def compute_novelty(lists: TopLists, counts: ItemCounts) -> FloatVector:
    """Compute the mean self-information of each user's list in bits, [U]."""
    return lists.average_by_user(-np.log2(np.maximum(counts.users, 1) / counts.n_users))


def compute_popularity(lists: TopLists, counts: ItemCounts) -> FloatVector:
    """Compute the mean number of training interactions of the items of each user's list, [U]."""
    return lists.average_by_user(counts.interactions)


def compute_lift(lists: TopLists, counts: ItemCounts, user_ids: IdArray) -> FloatVector:
    """Compute how much more popular each user's list is than the user's training part, [U].

    Args:
        lists: lists of U users.
        counts: counts of the training part.
        user_ids: [U] id of each user of the lists.

    Returns:
        [U] ratio minus 1; NaN for a user without training part.
    """
    return compute_popularity(lists, counts) / counts.profile[user_ids] - 1.0


def compute_diversity(lists: TopLists, features: FloatArray, covered: BoolArray) -> FloatVector:
    """Compute the mean of 1 - cosine over the pairs of items of each user's list, [U].

    With unit vectors f, the sum of the cosines of all pairs of n items is (|sum of f|^2 - n) / 2.

    Args:
        lists: lists of U users.
        features: [I + 1, D_m] features of the items.
        covered: [I + 1] whether an item has features of its own; others are left out, and so are zero vectors.
    """
    norms = np.linalg.norm(features.astype(np.float64), axis=1)
    has_features = covered & (norms > 0)
    kept = has_features[lists.item]
    user, item = lists.user[kept], lists.item[kept]
    starts = np.searchsorted(user, np.arange(lists.n_users + 1))
    squares = np.zeros(lists.n_users)
    block = max(1, _BLOCK_ENTRIES // (features.shape[1] * max(1, int(np.diff(starts).max(initial=1)))))
    for first in range(0, lists.n_users, block):
        last = min(first + block, lists.n_users)
        low, high = starts[first], starts[last]
        unit = features[item[low:high]].astype(np.float64) / norms[item[low:high], None]
        own = starts[first:last] - low
        filled = np.diff(starts[first : last + 1]) > 0  # `reduceat` cannot sum nothing
        sums = np.add.reduceat(unit, own[filled], axis=0) if filled.any() else np.zeros((0, features.shape[1]))
        squares[first:last][filled] = np.einsum("ud,ud->u", sums, sums)
    n = np.diff(starts).astype(np.float64)
    n_pairs = n * (n - 1) / 2
    cosines = (squares - n) / 2
    mean: FloatVector = np.divide(n_pairs - cosines, n_pairs, out=np.zeros(lists.n_users), where=n_pairs > 0)
    return mean
