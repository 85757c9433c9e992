"""Frozen objects that travel between the parts of the harness.

Axis letters used in every shape comment: U users, I items, E training interactions, T targets, B batch, L history
length, D embedding width, D_m width of modality m, C candidates.

Ids are internal: users are 1..U and items 1..I. Id 0 is padding, never a user or an item, so every table indexed by an
id has U + 1 or I + 1 rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

IdArray = npt.NDArray[np.int64]
TokenArray = npt.NDArray[np.str_]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Histories:
    """Item sequences of all users, oldest first, in compressed rows.

    Attributes:
        indptr: [U + 2]; the items of user u are `items[indptr[u]:indptr[u + 1]]`. User 0 (padding) has none.
        items: [E] item ids.
    """

    indptr: IdArray
    items: IdArray

    @property
    def n_users(self) -> int:
        """Number of users, padding left out."""
        return len(self.indptr) - 2

    def of(self, user: int) -> IdArray:
        """Items of one user, oldest first."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def lengths(self) -> IdArray:
        """[U + 1] number of items of each user id; entry 0 is 0."""
        return np.diff(self.indptr)

    def users(self) -> IdArray:
        """[E] the user of each entry of `items`."""
        return np.repeat(np.arange(len(self.indptr) - 1, dtype=np.int64), self.lengths())

    @staticmethod
    def from_pairs(user: IdArray, item: IdArray, n_users: int) -> Histories:
        """Group (user, item) pairs by user; the order of a user's pairs is kept (stable).

        Args:
            user: [E] user ids, 1..n_users, in any order.
            item: [E] item ids.
            n_users: U.
        """
        order = np.argsort(user, kind="stable")
        counts = np.bincount(user, minlength=n_users + 1)
        indptr = np.zeros(n_users + 2, dtype=np.int64)
        np.cumsum(counts, out=indptr[1:])
        return Histories(indptr=indptr, items=np.asarray(item, dtype=np.int64)[order])


@dataclass(frozen=True)
class Targets:
    """Held-out (user, item) pairs of one phase, sorted by user id; a user may occur several times.

    Attributes:
        user: [T] user ids.
        item: [T] item ids.
    """

    user: IdArray
    item: IdArray

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class TrainData:
    """Everything a model may see while it is built and trained: no validation and no test interaction.

    Attributes:
        n_users: U.
        n_items: I.
        history: training interactions of each user, oldest first.
        features: modality name -> [I + 1, D_m] float32; row i belongs to item id i, row 0 is zero.
        cache: folder for what is costly to derive from the features; None keeps nothing.
        pretrained: model name -> [I + 1, D] pretrained item embeddings, of the same split, row 0 zero.
        item_text: [I + 1] text of each item, entry 0 ""; empty where the dataset has none.
        covered: modality -> [I + 1] whether the item has features of its own; the others' rows are fill. Entry 0 False.
    """

    n_users: int
    n_items: int
    history: Histories
    features: Mapping[str, FloatArray]
    cache: Path | None = None
    pretrained: Mapping[str, FloatArray] = field(default_factory=dict)
    item_text: tuple[str, ...] = ()
    covered: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True)
class SelectionData:
    """What training and selection are handed: the training part and the validation targets, and no test part."""

    train: TrainData
    valid: Targets


@dataclass(frozen=True)
class PairBatch:
    """A batch of BPR triples: [B] user ids, [B] observed item ids, [B] sampled unobserved item ids."""

    user: Tensor
    positive: Tensor
    negative: Tensor


@dataclass(frozen=True)
class HistoryBatch:
    """Sequences with a target at each position, right-padded with 0.

    Attributes:
        items: [B, L] item ids, oldest first.
        targets: [B, L] the item that follows each position; 0 where nothing is to be predicted.
    """

    items: Tensor
    targets: Tensor


@dataclass(frozen=True)
class QueryBatch:
    """Users to be scored.

    Attributes:
        user: [B] user ids.
        items: [B, L] the most recent history items, oldest first, right-padded with 0; L is 0 for models that read
            none.
    """

    user: Tensor
    items: Tensor


@dataclass(frozen=True)
class Encoded:
    """What a model computes once for a whole evaluation.

    Attributes:
        items: [I + 1, D] item vectors; row 0 (padding) is never a candidate.
        users: [U + 1, D] user vectors, or None for models whose user vector comes from the history alone.
        item_bias: [I + 1] added to every score, or None.
    """

    items: Tensor
    users: Tensor | None = None
    item_bias: Tensor | None = None

    def of_users(self, user: Tensor) -> Tensor:
        """[B, D] vectors of user ids, for models that have users."""
        assert self.users is not None
        return F.embedding(user, self.users)  # the gradient of `users[user]` depends on how CPU threads are scheduled

    def of_items(self, item: Tensor) -> Tensor:
        """[B, D] vectors of item ids."""
        return F.embedding(item, self.items)


class Recommender(Protocol):
    """A model: only maths. The score of a user for item i is `query(...) . encoded.items[i] + encoded.item_bias[i]`.

    `max_history` is the number of history items that `query` reads, 0 if it reads none.
    """

    max_history: int

    def encode(self) -> Encoded:
        """User and item vectors, computed once for a whole evaluation."""

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """[B, D] vectors of the users of a batch."""

    def loss(self, batch: PairBatch | HistoryBatch) -> dict[str, Tensor]:
        """Named scalar terms; their sum is what is minimised."""


@runtime_checkable
class StartsEpochs(Protocol):
    """A model that draws or builds something for each epoch of training."""

    def start_epoch(self) -> None:
        """Called before an epoch's first step, with torch's random stream at the epoch's start."""


@runtime_checkable
class FollowsProgress(Protocol):
    """A model that trains differently as training goes on."""

    def at(self, progress: float) -> None:
        """Called before each step with the part of all epochs that is done, in [0, 1)."""


class Scorer(Protocol):
    """Anything that can be ranked: our models and RecBole's."""

    def prepare(self) -> None:
        """Compute what is the same for all users; called once before an evaluation."""

    def scores(self, user: IdArray, history: Histories) -> Tensor:
        """[B, I] float32 scores of all items (column c is item id c + 1) for user ids `user`, given their histories.

        The tensor may be a buffer that the next call overwrites.
        """


def as_ids(values: IdArray, device: torch.device) -> Tensor:
    """int64 tensor of ids on `device`."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)


def pad_recent(indptr: IdArray, items: IdArray, users: IdArray, length: int) -> IdArray:
    """[B, length] the most recent items of each user, oldest first, right-padded with 0.

    >>> pad_recent(np.array([0, 0, 3]), np.array([5, 6, 7]), np.array([1]), 2).tolist()
    [[6, 7]]
    """
    end = indptr[users + 1]
    start = np.maximum(indptr[users], end - length)
    at = start[:, None] + np.arange(length)[None, :]
    inside = at < end[:, None]
    return np.where(inside, items[np.where(inside, at, 0)], 0)
