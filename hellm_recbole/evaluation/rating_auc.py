"""AUC and user AUC of scores against liked and disliked items, the metrics of CoLLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata


@dataclass(frozen=True)
class UserAUC:
    """The AUC of each user, averaged.

    Attributes:
        mean: mean over the users with a liked and a disliked item, each with the same weight; None if there is none.
        n_users: number of these users.
        n_single: number of users left out because they have one item only.
        n_one_class: number of users left out because they like all of their items, or none.
    """

    mean: float | None
    n_users: int
    n_single: int
    n_one_class: int


def compute_auc(liked: npt.NDArray[np.bool_], score: npt.NDArray[np.number[Any]]) -> float | None:
    """Compute the probability that a liked item has a higher score than a disliked one; a tie counts one half.

    Full ranking counts a tie against the model; the AUC does not. A model that scores all items alike has .5.

    Args:
        liked: [T] whether the item is liked.
        score: [T] scores.

    Returns:
        The area under the ROC curve; None if all items are liked, or none.

    >>> compute_auc(np.array([True, False, False]), np.array([2.0, 2.0, 1.0]))
    0.75
    """
    n_liked = int(liked.sum())
    n_disliked = len(liked) - n_liked
    if n_liked == 0 or n_disliked == 0:
        return None
    rank = rankdata(score)  # from 1, equal scores have the mean of their ranks
    return float((rank[liked].sum() - n_liked * (n_liked + 1) / 2) / (n_liked * n_disliked))


def compute_user_auc(
    user: npt.NDArray[Any], liked: npt.NDArray[np.bool_], score: npt.NDArray[np.number[Any]]
) -> UserAUC:
    """Compute the AUC of each user and average it over the users that have a liked and a disliked item.

    Args:
        user: [T] user of each item, as id or token, in any order.
        liked: [T] whether the item is liked.
        score: [T] scores.

    >>> compute_user_auc(np.array([1, 1, 2, 3, 3]), np.array([1, 0, 1, 1, 1]) > 0, np.array([5, 4, 3, 2, 1]))
    UserAUC(mean=1.0, n_users=1, n_single=1, n_one_class=1)
    """
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.append(True, user[order][1:] != user[order][:-1])) if len(user) else np.array([], int)
    groups = np.split(order, starts[1:]) if len(user) else []
    found = [compute_auc(liked[group], score[group]) for group in groups]
    values = [value for value in found if value is not None]
    n_single = sum(len(group) == 1 for group in groups)
    mean = float(np.mean(values)) if values else None
    return UserAUC(mean, len(values), n_single, len(groups) - len(values) - n_single)
