"""Draw the batches of training epochs.

The batches of an epoch depend on (seed, epoch) only, so a resumed run has the same batches as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch

from hellm_recbole.config.harness_settings import PairSettings, StepSettings, TrainSettings
from hellm_recbole.errors import DataError
from hellm_recbole.models.base import BatchKind
from hellm_recbole.types import HistoryBatch, IdArray, PairBatch, TrainData, as_ids, pad_recent


def derive_epoch_seed(seed: int, epoch: int) -> int:
    """Compute a 63-bit seed for one epoch; similar (seed, epoch) pairs have unrelated random streams."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


class BatchSource(Protocol):
    """A source of the batches of each epoch."""

    def count_batches(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, seed: int) -> Iterator[PairBatch | HistoryBatch]:
        """Yield the batches of an epoch, drawn from the random stream of `seed`."""


class PairSource:
    """BPR triples of a user, an observed item and a sampled item that the user has not seen.

    An epoch has one triple for each training interaction. Negatives are drawn uniformly from the items that are not in
    the user's training part. A validation or test item can be a negative, as in RecBole, MMRec, RecBoard and HeLLM.

    Args:
        data: training part.
        batch_size: number of triples in a batch.
        sampling: `interactions` or `users`. `interactions` takes each training interaction once, in random order, so
            that active users occur more often (RecBole, MMRec). `users` draws users uniformly with replacement, and
            one item of each user uniformly (RecBoard; the released HeLLM code draws distinct users for each batch).
        device: device of the batches.

    Raises:
        DataError: a user has interacted with every item, so that there is no negative.
    """

    def __init__(self, data: TrainData, batch_size: int, sampling: str, device: torch.device) -> None:
        self.user = data.history.repeat_users()
        self.item = data.history.items
        self.n_items, self.batch_size, self.sampling, self.device = data.n_items, batch_size, sampling, device
        self._indptr, self._lengths = data.history.indptr, data.history.count_items()
        self._active = np.flatnonzero(self._lengths)
        self._stride = data.n_items + 1
        self._known = np.unique(self.user * self._stride + self.item)  # sorted keys of the observed (user, item) pairs
        distinct = np.bincount(self._known // self._stride, minlength=data.n_users + 1)
        if distinct.max(initial=0) >= data.n_items:
            raise DataError(
                "a user has interacted with every item in training, so that no negative item exists for them; "
                "remove such users from the dataset"
            )

    def count_batches(self) -> int:
        """Return the number of batches in an epoch; the last batch may be smaller."""
        return -(-len(self.user) // self.batch_size)

    def epoch(self, seed: int) -> Iterator[PairBatch]:
        """Yield the random triples of an epoch, in batches."""
        rng = np.random.default_rng(seed)
        user, positive = self._draw_positives(rng)
        columns = [as_ids(part, self.device) for part in (user, positive, self.draw_negatives(user, rng))]
        for rows in zip(*(column.split(self.batch_size) for column in columns), strict=True):
            yield PairBatch(*rows)

    def _draw_positives(self, rng: np.random.Generator) -> tuple[IdArray, IdArray]:
        """Draw [E] users, and one observed item of each user, [E]."""
        if self.sampling == "interactions":
            order = rng.permutation(len(self.user))
            return self.user[order], self.item[order]
        user = rng.choice(self._active, size=len(self.user))
        return user, self.item[self._indptr[user] + rng.integers(0, self._lengths[user])]

    def draw_negatives(self, user: IdArray, rng: np.random.Generator) -> IdArray:
        """Draw one item for each user, uniformly from the items that are not in the user's training part.

        Args:
            user: [B] user ids.
            rng: random generator.

        Returns:
            [B] item ids.
        """
        drawn = rng.integers(1, self.n_items + 1, size=len(user))
        redo = np.arange(len(user))
        while len(redo):
            key = user[redo] * self._stride + drawn[redo]
            position = np.minimum(np.searchsorted(self._known, key), len(self._known) - 1)
            redo = redo[self._known[position] == key]
            drawn[redo] = rng.integers(1, self.n_items + 1, size=len(redo))
        return drawn


class SequenceSource:
    """The most recent training items of each user, once in each epoch; the target of each item is the next item.

    Args:
        data: training part.
        batch_size: number of users in a batch.
        max_history: L, largest number of items in a sequence.
        device: device of the batches.
        drop_last: whether a last batch that is not full is left out.

    Raises:
        DataError: no user has two training interactions, or no batch is full.
    """

    def __init__(
        self, data: TrainData, batch_size: int, max_history: int, device: torch.device, *, drop_last: bool = False
    ) -> None:
        lengths = data.history.count_items()
        users = np.flatnonzero(lengths >= 2)
        if len(users) == 0:
            raise DataError("no user has two training interactions, so a sequential model has nothing to learn from")
        self.batch_size, self.device = batch_size, device
        recent = pad_recent(
            data.history.indptr, data.history.items, users, max_history + 1
        )  # oldest first, right-padded
        self.users = users
        shifted = np.zeros_like(recent)
        shifted[:, :-1] = recent[:, 1:]
        self.items = np.where(shifted != 0, recent, 0)[:, :-1]
        self.targets = shifted[:, :-1]
        self._n_batches = _count_batches(len(self.items), batch_size, drop_last=drop_last)

    def count_batches(self) -> int:
        """Return the number of batches in an epoch; the last batch may be smaller."""
        return self._n_batches

    def epoch(self, seed: int) -> Iterator[HistoryBatch]:
        """Yield the sequences of all users in random order, in batches."""
        order = np.random.default_rng(seed).permutation(len(self.items))
        for start in range(0, self._n_batches * self.batch_size, self.batch_size):
            rows = order[start : start + self.batch_size]
            yield HistoryBatch(
                *(as_ids(values[rows], self.device) for values in (self.items, self.targets, self.users))
            )


class PrefixSource:
    """Prefixes of each user's training sequence; the only target of a prefix is the item that follows it.

    The targets are the last `max_history` training items, and each has up to `max_history` items before it, as in
    scoring. The released HeLLM code takes the last 50 items of a user, with the validation and the test item, and makes
    prefixes of those that are in the training part: with `window` 48, the examples are the same.

    Args:
        data: training part.
        batch_size: number of prefixes in a batch.
        max_history: largest number of items in a prefix.
        per_user: number of prefixes drawn for each user and epoch, without replacement; None takes all prefixes.
        device: device of the batches.
        window: number of most recent training items of a user that occur in prefixes and targets; None for all that
            the targets follow.
        drop_last: whether a last batch that is not full is left out.

    Raises:
        DataError: no user has two training interactions, or no batch is full.
    """

    def __init__(
        self,
        data: TrainData,
        batch_size: int,
        max_history: int,
        per_user: int | None,
        device: torch.device,
        *,
        window: int | None = None,
        drop_last: bool = False,
    ) -> None:
        lengths = np.minimum(data.history.count_items(), max_history + 1 if window is None else window)
        self._users = np.flatnonzero(lengths >= 2)
        if len(self._users) == 0:
            raise DataError("no user has two training interactions, so a sequential model has nothing to learn from")
        self.batch_size, self.max_history, self.per_user, self.device = batch_size, max_history, per_user, device
        self._history = data.history
        self._n_prefixes = lengths[self._users] - 1
        self._first = data.history.indptr[self._users]  # position of the first item that a prefix of the user can have
        if window is not None:
            self._first = np.maximum(self._first, data.history.indptr[self._users + 1] - window)
        n_drawn = self._n_prefixes if per_user is None else np.minimum(self._n_prefixes, per_user)
        self._n_batches = _count_batches(int(n_drawn.sum()), batch_size, drop_last=drop_last)

    def count_batches(self) -> int:
        """Return the number of batches in an epoch; the last batch may be smaller."""
        return self._n_batches

    def epoch(self, seed: int) -> Iterator[HistoryBatch]:
        """Yield the prefixes of all users in random order, in batches."""
        rng = np.random.default_rng(seed)
        owner = np.repeat(np.arange(len(self._users)), self._n_prefixes)
        first = np.repeat(np.cumsum(self._n_prefixes) - self._n_prefixes, self._n_prefixes)
        number = np.arange(len(owner)) - first  # 0 is the shortest prefix of a user
        order = rng.permutation(len(owner))
        if self.per_user is not None:  # those of each user that come first in random order
            by_user = order[np.argsort(owner[order], kind="stable")]
            order = rng.permutation(by_user[number < self.per_user])
        end = (
            self._history.indptr[self._users + 1][owner] - self._n_prefixes[owner] + number
        )  # position of the target in the items
        start = np.maximum(self._first[owner], end - self.max_history)
        for first_row in range(0, self._n_batches * self.batch_size, self.batch_size):
            rows = order[first_row : first_row + self.batch_size]
            length = end[rows] - start[rows]
            offset = np.arange(length.max())
            inside = offset < length[:, None]
            items = np.where(inside, self._history.items[np.where(inside, start[rows, None] + offset, 0)], 0)
            targets = np.where(offset == length[:, None] - 1, self._history.items[end[rows], None], 0)
            users = self._users[owner[rows]]
            yield HistoryBatch(*(as_ids(values, self.device) for values in (items, targets, users)))


def _count_batches(n_examples: int, size: int, *, drop_last: bool) -> int:
    """Compute the number of batches of an epoch.

    Args:
        n_examples: number of examples.
        size: number of examples in a batch.
        drop_last: whether a last batch that is not full is left out.

    Raises:
        DataError: no batch is full, and one that is not full is left out.
    """
    if drop_last and n_examples < size:
        raise DataError(
            f"drop_last leaves no batch: batch_size is {size}, and an epoch has {n_examples} examples; lower "
            "batch_size, or set drop_last to false"
        )
    return n_examples // size if drop_last else -(-n_examples // size)


def split_micro_batches(
    batch: HistoryBatch, size: int, *, keep_width: bool = False
) -> list[tuple[float, HistoryBatch]]:
    """Split a batch into parts that contain sequences of similar length.

    Each part is cut to its longest sequence. The mean loss of the batch is the sum over the parts of the share times
    the mean loss of the part. A part without targets is left out.

    Args:
        batch: batch to split.
        size: largest number of sequences in a part.
        keep_width: whether parts keep the width of the batch, for models to which its longest sequence matters.

    Returns:
        For each part, its share of the targets of the batch, and the part.
    """
    length = (batch.items != 0).sum(dim=1)
    order = torch.argsort(length, stable=True)
    total = int((batch.targets != 0).sum())
    parts = []
    for rows in order.split(size):
        width = batch.items.shape[1] if keep_width else int(length[rows].max())
        user = None if batch.user is None else batch.user[rows]
        part = HistoryBatch(batch.items[rows, :width], batch.targets[rows, :width], user)
        n_targets = int((part.targets != 0).sum())
        if n_targets:
            parts.append((n_targets / total, part))
    return parts


def make_batch_source(
    kind: BatchKind,
    model_settings: Any,
    train: TrainSettings,
    pairs: PairSettings | None,
    steps: StepSettings | None,
    data: TrainData,
    device: torch.device,
) -> BatchSource:
    """Build the batches that a model is trained on: BPR triples, prefixes or whole sequences.

    Args:
        kind: kind of batch that the model is registered with.
        model_settings: settings of the model.
        train: settings of the loop.
        pairs: settings of BPR triples; None for a model of sequences.
        steps: training settings of LLM models only; None for other models.
        data: training part.
        device: device of the batches.
    """
    if pairs is not None:
        return PairSource(data, train.batch_size, pairs.sampling, device)
    max_history, drop_last = model_settings.max_history, steps is not None and steps.drop_last
    if steps is not None and model_settings.examples != "causal":
        per_user = steps.examples_per_user if model_settings.examples == "random" else None
        window = steps.example_items
        return PrefixSource(data, train.batch_size, max_history, per_user, device, window=window, drop_last=drop_last)
    if kind == "prefixes":
        return PrefixSource(data, train.batch_size, max_history, None, device)
    return SequenceSource(data, train.batch_size, max_history, device, drop_last=drop_last)
