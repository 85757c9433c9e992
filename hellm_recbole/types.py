"""Data types that the parts of the package share: ids, batches, histories and model protocols.

Axis letters used in every shape comment: U users, I items, E training interactions, T targets, B batch, L history
length, D embedding width, D_m width of modality m, C candidates.

Ids are internal: users are 1..U and items 1..I. Id 0 is padding. It is never a user or an item, so every array that is
indexed by an id has U + 1 or I + 1 rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # torch is loaded where a tensor is made, so that commands without tensors start quickly
    import torch
    from torch import Tensor

IdArray = npt.NDArray[np.int64]
TokenArray = npt.NDArray[np.str_]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

USER_TABLE = " (users)"  # end of the name of a table of user embeddings; the name of a model has no space


@dataclass(frozen=True)
class Histories:
    """Item sequences of all users, oldest first, in compressed sparse row form.

    Attributes:
        indptr: [U + 2] offsets; the items of user u are `items[indptr[u]:indptr[u + 1]]`. User 0 (padding) has none.
        items: [E] item ids.
    """

    indptr: IdArray
    items: IdArray

    @property
    def n_users(self) -> int:
        """Number of users without the padding."""
        return len(self.indptr) - 2

    def get_items(self, user: int) -> IdArray:
        """Return the item ids of one user, oldest first."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def count_items(self) -> IdArray:
        """Return the number of items of each user id, [U + 1]. Entry 0 is 0."""
        return np.diff(self.indptr)

    def repeat_users(self) -> IdArray:
        """Return the user id of each entry of `items`, [E]."""
        return np.repeat(np.arange(len(self.indptr) - 1, dtype=np.int64), self.count_items())

    @staticmethod
    def from_pairs(user: IdArray, item: IdArray, n_users: int) -> Histories:
        """Group (user, item) pairs by user. The pairs of a user keep their order.

        Args:
            user: [E] user ids, 1..n_users, in any order.
            item: [E] item ids.
            n_users: number of users U.
        """
        order = np.argsort(user, kind="stable")
        counts = np.bincount(user, minlength=n_users + 1)
        indptr = np.zeros(n_users + 2, dtype=np.int64)
        np.cumsum(counts, out=indptr[1:])
        return Histories(indptr=indptr, items=np.asarray(item, dtype=np.int64)[order])


@dataclass(frozen=True)
class Targets:
    """Held-out (user, item) pairs of one phase, sorted by user id. A user may occur several times.

    Attributes:
        user: [T] user ids.
        item: [T] item ids.
    """

    user: IdArray
    item: IdArray

    def __len__(self) -> int:
        return len(self.user)


def name_user_table(model: str) -> str:
    """Return the name under which the user embeddings of a pretrained model are passed, beside its item embeddings.

    >>> name_user_table("HeLLMPre")
    'HeLLMPre (users)'
    """
    return f"{model}{USER_TABLE}"


@dataclass(frozen=True)
class TrainData:
    """Data that a model may see while it is built and trained, without validation and test interactions.

    Attributes:
        n_users: number of users U.
        n_items: number of items I.
        history: training interactions of each user, oldest first.
        features: modality name -> [I + 1, D_m] float32 features. Row i belongs to item id i; row 0 is zero.
        cache: folder for results that are expensive to compute from the features; None for no cache.
        pretrained: model name -> [I + 1, D] item embeddings that were pretrained on the same split; row 0 is zero.
            `name_user_table` of a model -> its [U + 1, D] user embeddings, for models that read these.
        item_text: [I + 1] text of each item; entry 0 is "". Empty if the dataset has no texts.
        covered: modality name -> [I + 1] bool, whether the item has its own features. The other items have filled-in
            rows. Entry 0 is False.
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
    """Data for training and model selection: the training part and the validation targets, without the test part."""

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
    """A batch of sequences with a target at each position, right-padded with 0.

    Attributes:
        items: [B, L] item ids, oldest first.
        targets: [B, L] id of the item that follows each position; 0 at positions without a prediction.
        user: [B] user ids; None where the source of the batch does not know them, for few models read them.
    """

    items: Tensor
    targets: Tensor
    user: Tensor | None = None


@dataclass(frozen=True)
class QueryBatch:
    """A batch of users to score.

    Attributes:
        user: [B] user ids.
        items: [B, L] most recent history items, oldest first, right-padded with 0. L is 0 for models that read no
            history.
    """

    user: Tensor
    items: Tensor


@dataclass(frozen=True)
class Encoded:
    """User and item vectors that a model computes once for a whole evaluation.

    Attributes:
        items: [I + 1, D] item vectors. Row 0 (padding) is never a candidate.
        users: [U + 1, D] user vectors; None for models that compute user vectors from the history only.
        item_bias: [I + 1] bias of each item, which is added to its scores; None for no bias.
    """

    items: Tensor
    users: Tensor | None = None
    item_bias: Tensor | None = None

    def select_users(self, user: Tensor) -> Tensor:
        """Return the vectors of user ids, [B, D]. The model must have user vectors."""
        import torch.nn.functional as F

        assert self.users is not None
        return F.embedding(user, self.users)  # the gradient of `users[user]` depends on how CPU threads are scheduled

    def select_items(self, item: Tensor) -> Tensor:
        """Return the vectors of item ids, [B, D]."""
        import torch.nn.functional as F

        return F.embedding(item, self.items)


class Recommender(Protocol):
    """A recommendation model. The score of a user for item i is `query(...) . encoded.items[i] + encoded.item_bias[i]`.

    Attributes:
        max_history: number of history items that `query` reads; 0 if it reads none.
    """

    max_history: int

    def encode(self) -> Encoded:
        """Compute the user and item vectors for a whole evaluation."""

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Compute the user vectors of a batch, [B, D]."""

    def loss(self, batch: PairBatch | HistoryBatch) -> dict[str, Tensor]:
        """Compute the named scalar loss terms. Training minimises their sum."""


@runtime_checkable
class StartsEpochs(Protocol):
    """A model that samples or builds something at the start of each training epoch."""

    def start_epoch(self) -> None:
        """Prepare the model for an epoch.

        Called before the first step of the epoch. The state of torch's random generator is that of the epoch's start.
        """


@runtime_checkable
class FollowsProgress(Protocol):
    """A model whose training depends on the progress of training."""

    def set_progress(self, progress: float) -> None:
        """Set the progress of training. Called before each step.

        Args:
            progress: fraction of all epochs that is completed, in [0, 1).
        """


@runtime_checkable
class ListsUndecayed(Protocol):
    """A model, or a part of one, with parameters to which weight decay does not apply if `decay_vectors` is false."""

    def list_undecayed(self) -> Collection[str]:
        """List the names of parameters of two or more dimensions without weight decay, such as tables of positions.

        Names are those of the part's own `named_parameters`. Parameters with at most one dimension need not be listed.
        """


class Scorer(Protocol):
    """A model that can be evaluated: one of ours or one of RecBole's."""

    def prepare(self) -> None:
        """Compute what all users share. Called once before an evaluation."""

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items for some users.

        Args:
            user: [B] user ids.
            history: histories of all users.

        Returns:
            [B, I] float32 scores; column c belongs to item id c + 1. The next call may overwrite this tensor.
        """


def as_ids(values: IdArray, device: torch.device) -> Tensor:
    """Convert an array of ids to an int64 tensor on `device`."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)


def pad_recent(indptr: IdArray, items: IdArray, users: IdArray, length: int) -> IdArray:
    """Return the most recent items of some users, oldest first, right-padded with 0.

    Args:
        indptr: [U + 2] offsets, see `Histories`.
        items: [E] item ids.
        users: [B] user ids.
        length: number of columns of the result.

    Returns:
        [B, length] item ids.

    >>> pad_recent(np.array([0, 0, 3]), np.array([5, 6, 7]), np.array([1]), 2).tolist()
    [[6, 7]]
    """
    end = indptr[users + 1]
    start = np.maximum(indptr[users], end - length)
    index = start[:, None] + np.arange(length)[None, :]
    inside = index < end[:, None]
    return np.where(inside, items[np.where(inside, index, 0)], 0)
