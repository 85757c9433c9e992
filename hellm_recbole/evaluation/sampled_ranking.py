"""Sampled ranking: each target is ranked among a few sampled items instead of all, as some papers do.

It is an extra for comparing with such papers. Its metrics are not comparable with those of full ranking, and they can
order models differently (Krichene and Rendle, KDD 2020).

The negatives of a target are drawn without replacement from the items that are neither in the user's history of the
phase nor a target of the user in this phase. `uniform` gives each of them the same chance. `popularity` draws one after
the other in proportion to their training interactions, so an item without training interactions is never drawn. The
draw depends on the split and a seed of its own and on no model, so all models get the same negatives. RecBole's
`uni100` and `pop100` draw with replacement, so that a list can have fewer than 100 different items, and its popularity
counts the held-out interactions, too.

The rank of a target is the number of items of its list with a score at least as high, the target included: ties count
against the model, as in full ranking.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hellm_recbole.errors import SettingsError
from hellm_recbole.types import Histories, IdArray, Scorer, Targets, as_ids

Distribution = Literal["uniform", "popularity"]
DISTRIBUTIONS: tuple[Distribution, ...] = get_args(Distribution)
_BLOCK_KEYS = 1 << 22  # random numbers in memory at a time; the draw does not depend on it


@dataclass(frozen=True)
class Candidates:
    """How the negatives of each target are drawn.

    Attributes:
        distribution: chance of an item, uniform or in proportion to its training interactions.
        number: number of negatives of each target, N.
        seed: random seed of the draw.
    """

    distribution: Distribution
    number: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the candidates in names of files.

        >>> Candidates("uniform", 100, 2024).name
        'sampled_uniform_100_seed2024'
        """
        return f"sampled_{self.distribution}_{self.number}_seed{self.seed}"


def draw_negatives(
    targets: Targets, history: Histories, popularity: npt.NDArray[np.integer], candidates: Candidates
) -> IdArray:
    """Draw the negatives of each target.

    Each item gets an exponential random number, divided by its weight, and the items with the N smallest numbers are
    drawn. This is the same as drawing them one after the other in proportion to the weights of those that are left
    (Efraimidis and Spirakis, 2006).

    Args:
        targets: T targets, sorted by user.
        history: history of the phase of all users.
        popularity: [I] training interactions of each item, in the order of the item ids; only `popularity` reads it.
        candidates: distribution, number and seed.

    Returns:
        [T, N] item ids, ascending in each row.

    Raises:
        SettingsError: a user has fewer items to draw from.
    """
    generator = np.random.default_rng(candidates.seed)
    weight = np.ones(len(popularity)) if candidates.distribution == "uniform" else popularity.astype(np.float64)
    number, block = candidates.number, max(1, _BLOCK_KEYS // len(weight))
    drawn = np.empty((len(targets), number), dtype=np.int64)
    bounds = np.searchsorted(targets.user, np.arange(history.n_users + 2))
    for start in range(0, len(targets), block):
        users = targets.user[start : start + block]
        keys = generator.standard_exponential((len(users), len(weight)))
        with np.errstate(divide="ignore"):
            keys /= weight
        for row, user in enumerate(users):
            keys[row, history.get_items(int(user)) - 1] = np.inf
            keys[row, targets.item[bounds[user] : bounds[user + 1]] - 1] = np.inf
        fewest = int(np.isfinite(keys).sum(axis=1).min())
        if fewest < number:
            kind = "" if candidates.distribution == "uniform" else " with training interactions"
            raise SettingsError(
                f"{number} {candidates.distribution} candidates cannot be drawn: a user has only {fewest} unseen "
                f"items{kind}; choose at most {fewest}"
            )
        chosen = np.argpartition(keys, number - 1, axis=1)[:, :number]
        drawn[start : start + block] = np.sort(chosen, axis=1) + 1
    return drawn


def digest_negatives(
    targets: Targets, negatives: IdArray, user_tokens: npt.ArrayLike, item_tokens: npt.ArrayLike
) -> str:
    """Compute the SHA-256 of targets and negatives by their tokens, so that two draws can be compared.

    Args:
        targets: T targets.
        negatives: [T, N] item ids.
        user_tokens: [U + 1] token of each user id.
        item_tokens: [I + 1] token of each item id.
    """
    users, items = np.asarray(user_tokens), np.asarray(item_tokens)
    digest = hashlib.sha256()
    for user, item, others in zip(targets.user, targets.item, negatives, strict=True):
        digest.update(f"{users[user]}\t{items[item]}\t{' '.join(sorted(items[others].tolist()))}\n".encode())
    return digest.hexdigest()


def rank_among(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
    """Rank the first item of each list among its items; ties count against it.

    Args:
        scores: [T, 1 + N] scores of the target and of its negatives.

    Returns:
        [T] ranks from 1 to 1 + N.

    >>> rank_among(np.array([[2.0, 1.0, 3.0], [2.0, 2.0, 2.0]])).tolist()
    [2, 3]
    """
    ranks: npt.NDArray[np.int32] = (scores >= scores[:, :1]).sum(axis=1).astype(np.int32)
    return ranks


class ScoreReader:
    """Scorer that passes on the scores of another one, and keeps those of some items of each target.

    So one pass of `ranking.rank_targets` gives the full ranks and the scores of the items.

    Args:
        scorer: scorer of the model.
        targets: T targets, sorted by user.
        items: [T, C] item ids whose scores are kept.
    """

    def __init__(self, scorer: Scorer, targets: Targets, items: IdArray) -> None:
        self._scorer, self._targets, self._items = scorer, targets, items
        self.scores: npt.NDArray[np.float64] = np.full(items.shape, np.nan)

    def prepare(self) -> None:
        """Compute what all users share; see `types.Scorer`."""
        self._scorer.prepare()

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items for some users, [B, I]; see `types.Scorer`."""
        scores = self._scorer.compute_scores(user, history)
        first = np.searchsorted(self._targets.user, user, side="left")
        count = np.searchsorted(self._targets.user, user, side="right") - first
        row = np.repeat(np.arange(len(user)), count)
        target = np.arange(len(row)) + np.repeat(first - (np.cumsum(count) - count), count)
        rows, columns = as_ids(row, scores.device).unsqueeze(1), as_ids(self._items[target] - 1, scores.device)
        self.scores[target] = scores[rows, columns].to(torch.float64).cpu().numpy()
        return scores
