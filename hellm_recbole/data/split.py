"""Split a dataset into training, validation and test parts. The split depends on no seed.

Leave-one-out takes a user's last interaction for test and the one before it for validation. If a dataset has a split of
its own, that split is used. Each split has a SHA-256 of its ordered (user token, item token, part) triples. Results
are compared only if these hashes are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.dataset import PARTS, Dataset
from hellm_recbole.data.split_hash import hash_triples
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
    """A dataset with its training, validation and test parts.

    Attributes:
        dataset: name of the dataset.
        kind: kind of split; results of different kinds are never in the same table.
        user_tokens: [U + 1] source token of each user id; entry 0 is "".
        item_tokens: [I + 1] source token of each item id; entry 0 is "".
        train: training interactions of each user, oldest first.
        valid: validation targets.
        test: test targets.
        features: modality -> [I + 1, D_m] float32 feature matrix; row 0 is zero.
        sha256: hash of the ordered triples.
        n_interactions: number of interactions in all parts.
        n_short_users: number of users with fewer than three interactions; they are used in training but not evaluated
            (leave-one-out only).
        cache: cache folder of the dataset.
        item_text: [I + 1] text of each item; empty if the dataset has no texts.
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
        """Number of users, U."""
        return len(self.user_tokens) - 1

    @property
    def n_items(self) -> int:
        """Number of items, I."""
        return len(self.item_tokens) - 1

    @cached_property
    def feature_sha256(self) -> dict[str, str]:
        """Digest of the features of each modality, in item order."""
        return {name: digest_matrix(values[1:]) for name, values in self.features.items()}

    @cached_property
    def text_sha256(self) -> str:
        """Digest of the item texts, in item order."""
        return digest_texts(self.item_text[1:])

    def make_train_data(self) -> TrainData:
        """Return the data that a model may use: training interactions, features and texts."""
        return TrainData(
            self.n_users,
            self.n_items,
            self.train,
            self.features,
            self.cache,
            item_text=self.item_text,
            covered=self.covered,
        )

    def make_selection_data(self) -> SelectionData:
        """Return the training part and the validation targets, for training and model selection, without test part."""
        return SelectionData(self.make_train_data(), self.valid)

    def make_test_history(self) -> Histories:
        """Return training and validation interactions: the history of each user when the test targets are scored."""
        return extend_histories(self.train, self.valid)


def extend_histories(history: Histories, later: Targets) -> Histories:
    """Append the items of `later` to the history of their user."""
    user = np.concatenate([history.repeat_users(), later.user])
    item = np.concatenate([history.items, later.item])
    return Histories.from_pairs(user, item, history.n_users)


def split_dataset(dataset: Dataset) -> Split:
    """Split a dataset by its own parts if it has them, else by leave-one-out.

    Raises:
        DataError: no user can be evaluated, or a given split has no interaction in one of the parts.
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
                f"dataset {dataset.name}: there is no interaction for the {name} part; leave-one-out needs "
                f"users with at least {MIN_EVALUATED} interactions, a given split needs all of {', '.join(PARTS)}"
            )
    held_out = [Histories.from_pairs(user[part == code], item[part == code], dataset.n_users) for code in (VALID, TEST)]
    valid, test = (Targets(pairs.repeat_users(), pairs.items) for pairs in held_out)
    return Split(
        dataset=dataset.name,
        kind=kind,
        user_tokens=dataset.user_tokens,
        item_tokens=dataset.item_tokens,
        train=Histories.from_pairs(user[part == TRAIN], item[part == TRAIN], dataset.n_users),
        valid=valid,
        test=test,
        features=dataset.features,
        sha256=_hash_split(dataset, user, item, part, kind),
        n_interactions=len(user),
        n_short_users=n_short,
        cache=dataset.cache,
        item_text=dataset.item_text,
        covered=dataset.covered,
        feature_origins=dataset.feature_origins,
        text_columns=dataset.text_columns,
    )


def sort_by_time(dataset: Dataset) -> IdArray:
    """Return the [E] indices that sort interactions by user, then time; for equal times, file order decides."""
    if dataset.time is None:
        return np.argsort(dataset.user, kind="stable")
    return np.lexsort((dataset.time, dataset.user))


def leave_one_out(user: IdArray, n_users: int) -> tuple[IdArray, int]:
    """Assign a part to each interaction by leave-one-out.

    >>> leave_one_out(np.array([1, 1, 1, 2, 2]), 2)
    (array([0, 1, 2, 0, 0]), 1)

    Args:
        user: [E] user ids of interactions sorted by user, then time.
        n_users: number of users, U.

    Returns:
        [E] index in PARTS of each interaction; number of users with too few interactions to be evaluated.
    """
    counts = np.bincount(user, minlength=n_users + 1)
    ends = np.cumsum(counts)
    from_end = ends[user] - 1 - np.arange(len(user))  # 0 for a user's last interaction
    long_enough = counts[user] >= MIN_EVALUATED
    part = np.where(long_enough & (from_end == 0), TEST, TRAIN)
    part = np.where(long_enough & (from_end == 1), VALID, part)
    return part.astype(np.int64), int(np.sum((counts[1:] > 0) & (counts[1:] < MIN_EVALUATED)))


def _hash_split(dataset: Dataset, user: IdArray, item: IdArray, part: IdArray, kind: SplitKind) -> str:
    """Compute the SHA-256 of the (user token, item token, part) triples.

    The triples are sorted by user token. Those of one user are in time order, or sorted by part and item token if the
    split was given. So the hash does not depend on the order of users in the file.

    Args:
        dataset: dataset with the tokens.
        user: [E] user ids, sorted by user, then time.
        item: [E] item ids.
        part: [E] index in PARTS.
        kind: kind of split.
    """
    tokens = dataset.user_tokens, dataset.item_tokens
    return hash_triples(tokens, (user, item), part, PARTS, sort_all=kind == "given")
