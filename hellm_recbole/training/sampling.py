"""Training batches; an epoch is a pure function of (seed, epoch), so a resumed run sees what a whole one does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

from hellm_recbole.errors import DataError
from hellm_recbole.types import HistoryBatch, IdArray, PairBatch, TrainData, as_ids, pad_recent


def derive_epoch_seed(seed: int, epoch: int) -> int:
    """A 63-bit seed for one epoch; neighbouring (seed, epoch) pairs give unrelated streams."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


class BatchSource(Protocol):
    """Makes the batches of an epoch."""

    def n_batches(self) -> int:
        """Batches in an epoch."""

    def epoch(self, seed: int) -> Iterator[PairBatch | HistoryBatch]:
        """The batches of the epoch whose stream is `seed`."""


class PairSource:
    """BPR triples, as many an epoch as there are training interactions, each with an item the user has not met.

    `interactions` takes each training interaction once, in random order, so that active users occur more often
    (RecBole, MMRec). `users` draws users uniformly with replacement and one of the user's items uniformly (RecBoard;
    the released HeLLM code draws distinct users for each batch). Negatives are uniform over the items that are not in
    the user's training part; a validation or test item may be one, as in all of these.
    """

    def __init__(self, data: TrainData, batch_size: int, sampling: str, device: torch.device) -> None:
        self.user = data.history.users()
        self.item = data.history.items
        self.n_items, self.batch_size, self.sampling, self.device = data.n_items, batch_size, sampling, device
        self._indptr, self._lengths = data.history.indptr, data.history.lengths()
        self._active = np.flatnonzero(self._lengths)
        self._stride = data.n_items + 1
        self._known = np.unique(self.user * self._stride + self.item)  # sorted keys of observed pairs
        distinct = np.bincount(self._known // self._stride, minlength=data.n_users + 1)
        if distinct.max(initial=0) >= data.n_items:
            raise DataError(
                "a user has interacted with every item in training, so no negative can be drawn for them; "
                "drop such users"
            )

    def n_batches(self) -> int:
        """Batches in an epoch, the last one possibly smaller."""
        return -(-len(self.user) // self.batch_size)

    def epoch(self, seed: int) -> Iterator[PairBatch]:
        """Random triples."""
        rng = np.random.default_rng(seed)
        user, positive = self._positives(rng)
        columns = [as_ids(part, self.device) for part in (user, positive, self.negatives(user, rng))]
        for rows in zip(*(column.split(self.batch_size) for column in columns), strict=True):
            yield PairBatch(*rows)

    def _positives(self, rng: np.random.Generator) -> tuple[IdArray, IdArray]:
        """[E] users and an observed item of each."""
        if self.sampling == "interactions":
            order = rng.permutation(len(self.user))
            return self.user[order], self.item[order]
        user = rng.choice(self._active, size=len(self.user))
        return user, self.item[self._indptr[user] + rng.integers(0, self._lengths[user])]

    def negatives(self, user: IdArray, rng: np.random.Generator) -> IdArray:
        """[B] one item for each entry of `user`, uniform over those not in its training part."""
        drawn = rng.integers(1, self.n_items + 1, size=len(user))
        redo = np.arange(len(user))
        while len(redo):
            key = user[redo] * self._stride + drawn[redo]
            at = np.minimum(np.searchsorted(self._known, key), len(self._known) - 1)
            redo = redo[self._known[at] == key]
            drawn[redo] = rng.integers(1, self.n_items + 1, size=len(redo))
        return drawn


class SequenceSource:
    """Each user's most recent training items once an epoch, in random order; the next item is each one's target."""

    def __init__(self, data: TrainData, batch_size: int, max_history: int, device: torch.device) -> None:
        lengths = data.history.lengths()
        users = np.flatnonzero(lengths >= 2)
        if len(users) == 0:
            raise DataError("no user has two training interactions, so a sequential model has nothing to learn from")
        self.batch_size, self.device = batch_size, device
        recent = pad_recent(
            data.history.indptr, data.history.items, users, max_history + 1
        )  # oldest first, right-padded
        shifted = np.zeros_like(recent)
        shifted[:, :-1] = recent[:, 1:]
        self.items = np.where(shifted != 0, recent, 0)[:, :-1]
        self.targets = shifted[:, :-1]

    def n_batches(self) -> int:
        """Batches in an epoch, the last one possibly smaller."""
        return -(-len(self.items) // self.batch_size)

    def epoch(self, seed: int) -> Iterator[HistoryBatch]:
        """Shuffled sequences."""
        order = np.random.default_rng(seed).permutation(len(self.items))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield HistoryBatch(as_ids(self.items[rows], self.device), as_ids(self.targets[rows], self.device))


class PrefixSource:
    """Each of a user's most recent training items as the only target of the items before it.

    The released HeLLM code keeps the last 50 items of a user, validation and test item among them, and cuts prefixes
    from those; here the last `max_history` training items are targets, so that a test item decides nothing, and each
    has up to `max_history` items before it, as in scoring.

    Args:
        data: the training part.
        batch_size: prefixes a batch.
        max_history: most items of a prefix.
        per_user: prefixes drawn for each user an epoch, without replacement; None takes all.
        device: of the batches.
    """

    def __init__(
        self, data: TrainData, batch_size: int, max_history: int, per_user: int | None, device: torch.device
    ) -> None:
        lengths = np.minimum(data.history.lengths(), max_history + 1)
        self._users = np.flatnonzero(lengths >= 2)
        if len(self._users) == 0:
            raise DataError("no user has two training interactions, so a sequential model has nothing to learn from")
        self.batch_size, self.max_history, self.per_user, self.device = batch_size, max_history, per_user, device
        self._history = data.history
        self._n_prefixes = lengths[self._users] - 1
        kept = self._n_prefixes if per_user is None else np.minimum(self._n_prefixes, per_user)
        self._n_examples = int(kept.sum())

    def n_batches(self) -> int:
        """Batches in an epoch, the last one possibly smaller."""
        return -(-self._n_examples // self.batch_size)

    def epoch(self, seed: int) -> Iterator[HistoryBatch]:
        """Shuffled prefixes."""
        rng = np.random.default_rng(seed)
        owner = np.repeat(np.arange(len(self._users)), self._n_prefixes)
        first = np.repeat(np.cumsum(self._n_prefixes) - self._n_prefixes, self._n_prefixes)
        number = np.arange(len(owner)) - first  # 0 is a user's shortest prefix
        order = rng.permutation(len(owner))
        if self.per_user is not None:  # of each user the ones that come first in random order
            by_user = order[np.argsort(owner[order], kind="stable")]
            order = rng.permutation(by_user[number < self.per_user])
        end = self._history.indptr[self._users + 1][owner] - self._n_prefixes[owner] + number  # place of the target
        start = np.maximum(self._history.indptr[self._users][owner], end - self.max_history)
        for at in range(0, len(order), self.batch_size):
            rows = order[at : at + self.batch_size]
            length = end[rows] - start[rows]
            place = np.arange(length.max())
            inside = place < length[:, None]
            items = np.where(inside, self._history.items[np.where(inside, start[rows, None] + place, 0)], 0)
            targets = np.where(place == length[:, None] - 1, self._history.items[end[rows], None], 0)
            yield HistoryBatch(as_ids(items, self.device), as_ids(targets, self.device))


def split_micro_batches(batch: HistoryBatch, size: int) -> list[tuple[float, HistoryBatch]]:
    """Parts of a batch with sequences of like length, each cut to its longest, and its share of the targets.

    The mean loss of the batch is the sum of share times mean loss over the parts.
    """
    length = (batch.items != 0).sum(dim=1)
    order = torch.argsort(length, stable=True)
    total = int((batch.targets != 0).sum())
    parts = []
    for rows in order.split(size):
        width = int(length[rows].max())
        part = HistoryBatch(batch.items[rows, :width], batch.targets[rows, :width])
        n_targets = int((part.targets != 0).sum())
        if n_targets:
            parts.append((n_targets / total, part))
    return parts
