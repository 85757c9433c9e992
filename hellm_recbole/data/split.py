"""The split: built once per dataset, free of seeds, hashed.

Leave-one-out keeps a user's last interaction for test and the one before it for validation. A dataset with a split of
its own keeps that one. Both kinds carry a SHA-256 over the ordered (user token, item token, part) triples, so that
two results can be compared only if their splits are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.atomic import PARTS, Dataset
from hellm_recbole.errors import DataError
from hellm_recbole.identity.parts import FeatureOrigin, digest_matrix, digest_texts
from hellm_recbole.types import (
    FloatArray,
    Histories,
    IdArray,
    SelectionData,
    Targets,
    TokenArray,
    TrainData,
)

TRAIN, VALID, TEST = range(3)
MIN_EVALUATED = 3  # a user needs one interaction for each of train, validation and test

SplitKind = Literal["leave-one-out", "given"]


@dataclass(frozen=True)
class Split:
    """One dataset, split.

    Attributes:
        dataset: its name.
        kind: how it was split; the two kinds never share a table.
        user_tokens: [U + 1] source token of each user id; entry 0 is "".
        item_tokens: [I + 1] source token of each item id; entry 0 is "".
        train: training interactions by user, oldest first.
        valid: validation targets.
        test: test targets.
        features: modality -> [I + 1, D_m] float32, row 0 zero.
        sha256: hash of the ordered triples.
        n_interactions: of all parts.
        n_short_users: users with fewer than three interactions, trained on but not evaluated (leave-one-out only).
        cache: of the dataset.
        item_text: [I + 1] text of each item, or empty.
        covered: modality -> [I + 1] whether the item has features of its own.
        feature_origins: see `Dataset`.
        text_columns: see `Dataset`.
    """

    dataset: str
    kind: SplitKind
    user_tokens: TokenArray
    item_tokens: TokenArray
    train: Histories
    valid: Targets
    test: Targets
    features: Mapping[str, FloatArray]
    sha256: str
    n_interactions: int
    n_short_users: int
    cache: Path | None
    item_text: tuple[str, ...] = ()
    covered: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    feature_origins: Mapping[str, FeatureOrigin] = field(default_factory=dict)
    text_columns: tuple[str, ...] = ()

    @property
    def n_users(self) -> int:
        """U."""
        return len(self.user_tokens) - 1

    @property
    def n_items(self) -> int:
        """I."""
        return len(self.item_tokens) - 1

    @cached_property
    def feature_sha256(self) -> dict[str, str]:
        """Modality -> digest of its features, in item order."""
        return {name: digest_matrix(values[1:]) for name, values in self.features.items()}

    @cached_property
    def text_sha256(self) -> str:
        """Digest of the item texts, in item order."""
        return digest_texts(self.item_text[1:])

    def train_data(self) -> TrainData:
        """What a model may see."""
        return TrainData(
            self.n_users,
            self.n_items,
            self.train,
            self.features,
            self.cache,
            item_text=self.item_text,
            covered=self.covered,
        )

    def selection(self) -> SelectionData:
        """Training part and validation targets, for training and model selection; the test part is not in it."""
        return SelectionData(self.train_data(), self.valid)

    def test_history(self) -> Histories:
        """Training plus validation interactions: what a user has seen when the test targets are scored."""
        return extend_histories(self.train, self.valid)


def extend_histories(history: Histories, later: Targets) -> Histories:
    """Histories with the pairs of `later` appended to each user's own."""
    user = np.concatenate([history.users(), later.user])
    item = np.concatenate([history.items, later.item])
    return Histories.from_pairs(user, item, history.n_users)


def split_dataset(dataset: Dataset) -> Split:
    """Split a dataset by its own parts if it has them, else leave-one-out.

    Raises:
        DataError: no user is left to be evaluated, or a given split lacks a part.
    """
    order = sort_by_time(dataset)
    user, item = dataset.user[order], dataset.item[order]
    if dataset.part is None:
        kind: SplitKind = "leave-one-out"
        part, n_short = leave_one_out(user, dataset.n_users)
    else:
        kind, part, n_short = "given", dataset.part[order].astype(np.int64), 0
    for code, name in enumerate(PARTS):
        if not np.any(part == code):
            raise DataError(
                f"dataset {dataset.name}: no interaction is left for the {name} part; leave-one-out needs "
                f"users with at least {MIN_EVALUATED} interactions, a given split needs all of {', '.join(PARTS)}"
            )
    sides = [Histories.from_pairs(user[part == code], item[part == code], dataset.n_users) for code in (VALID, TEST)]
    valid, test = (Targets(side.users(), side.items) for side in sides)
    return Split(
        dataset=dataset.name,
        kind=kind,
        user_tokens=dataset.user_tokens,
        item_tokens=dataset.item_tokens,
        train=Histories.from_pairs(user[part == TRAIN], item[part == TRAIN], dataset.n_users),
        valid=valid,
        test=test,
        features=dataset.features,
        sha256=_sha256(dataset, user, item, part, kind),
        n_interactions=len(user),
        n_short_users=n_short,
        cache=dataset.cache,
        item_text=dataset.item_text,
        covered=dataset.covered,
        feature_origins=dataset.feature_origins,
        text_columns=dataset.text_columns,
    )


def sort_by_time(dataset: Dataset) -> IdArray:
    """[E] positions sorted by user, then time; equal times keep the file's order."""
    if dataset.time is None:
        return np.argsort(dataset.user, kind="stable")
    return np.lexsort((dataset.time, dataset.user))


def leave_one_out(user: IdArray, n_users: int) -> tuple[IdArray, int]:
    """[E] part codes of interactions sorted by user and time, and the number of users too short to evaluate.

    >>> leave_one_out(np.array([1, 1, 1, 2, 2]), 2)
    (array([0, 1, 2, 0, 0]), 1)
    """
    counts = np.bincount(user, minlength=n_users + 1)
    ends = np.cumsum(counts)
    from_end = ends[user] - 1 - np.arange(len(user))  # 0 for a user's last interaction
    long_enough = counts[user] >= MIN_EVALUATED
    part = np.where(long_enough & (from_end == 0), TEST, TRAIN)
    part = np.where(long_enough & (from_end == 1), VALID, part)
    return part.astype(np.int64), int(np.sum((counts[1:] > 0) & (counts[1:] < MIN_EVALUATED)))


def _sha256(dataset: Dataset, user: IdArray, item: IdArray, part: IdArray, kind: SplitKind) -> str:
    """Hash of the triples in an order of their own.

    Users come in token order; within a user time orders, or part and item token if the split was given. Token order
    makes the hash the same whatever file layout the data came from.
    """
    users, items = dataset.user_tokens[user], dataset.item_tokens[item]
    if kind == "given":
        order = np.lexsort((items, part, users))
    else:
        order = np.argsort(users, kind="stable")
    digest = hashlib.sha256()
    names = np.array(PARTS)[part]
    for row in order:
        digest.update(f"{users[row]}\t{items[row]}\t{names[row]}\n".encode())
    return digest.hexdigest()
