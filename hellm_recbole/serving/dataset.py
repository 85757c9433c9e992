"""A dataset as the Python API hands it out: its name, its counts, and the parts of its split as tables of tokens."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.diagnostics.warnings import diagnose
from hellm_recbole.data.replacement import is_prepared
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError, SettingsError
from hellm_recbole.experiments.recording import count_split
from hellm_recbole.experiments.results import Counts
from hellm_recbole.identity.compare import list_names
from hellm_recbole.plugins.splits import split_as_named
from hellm_recbole.types import Histories, IdArray, Targets

_DIGITS = 12  # first digits of the hash of a split, as in the caption of a table


@dataclass(frozen=True, eq=False)
class LoadedDataset:
    """A prepared dataset with its split.

    Attributes:
        source: the prepared dataset.
        split: its training, validation and test parts, with all item data.
        folder: folder of the prepared dataset.
    """

    source: Dataset
    split: Split
    folder: Path

    @property
    def name(self) -> str:
        """Name of the dataset, which is also the name of its folder of results."""
        return self.split.dataset

    @property
    def split_hash(self) -> str:
        """SHA-256 of the split; runs are compared only if theirs are equal."""
        return self.split.sha256

    @property
    def counts(self) -> Counts:
        """Numbers of users, items, interactions, and of those of each part."""
        return count_split(self.split)

    @cached_property
    def users(self) -> list[str]:
        """[U] tokens of all users, in the order of their ids."""
        return [str(token) for token in self.split.user_tokens[1:]]

    @cached_property
    def items(self) -> list[str]:
        """[I] tokens of all items, in the order of their ids, which is that of the columns of scores."""
        return [str(token) for token in self.split.item_tokens[1:]]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the item features."""
        return tuple(sorted(self.split.features))

    @property
    def train(self) -> pd.DataFrame:
        """Training part: `user_id` and `item_id` of each interaction, by user, oldest first."""
        return self._make_frame(self.split.train.repeat_users(), self.split.train.items)

    @property
    def valid(self) -> pd.DataFrame:
        """Validation part: `user_id` and `item_id` of each target, by user."""
        return self._make_frame(self.split.valid.user, self.split.valid.item)

    @property
    def test(self) -> pd.DataFrame:
        """Test part: `user_id` and `item_id` of each target, by user."""
        return self._make_frame(self.split.test.user, self.split.test.item)

    def select_phase(self, phase: str) -> tuple[Targets, Histories]:
        """Return the targets of a phase, "valid" or "test", and the histories that a model reads to score them.

        Raises:
            SettingsError: the phase is unknown.
        """
        if phase not in ("valid", "test"):
            raise SettingsError(f"phase = {phase!r} is unknown; it can be 'valid' or 'test'")
        if phase == "valid":
            return self.split.valid, self.split.train
        return self.split.test, self.split.make_test_history()

    def _make_frame(self, user: IdArray, item: IdArray) -> pd.DataFrame:
        """Make a table of tokens from [E] user ids and [E] item ids."""
        return pd.DataFrame({"user_id": self.split.user_tokens[user], "item_id": self.split.item_tokens[item]})

    def findings(self) -> pd.DataFrame:
        """Return the findings of the data card: properties of the data that affect a comparison of models.

        Returns:
            Columns `severity` ("error" makes results wrong, "warning" changes the comparison, "note" does neither),
            `finding`, `figure` and `effect`, errors first.
        """
        found = [(one.severity, one.name, one.figure, one.effect) for one in diagnose(self.folder)]
        return pd.DataFrame(found, columns=["severity", "finding", "figure", "effect"])

    def _repr_html_(self) -> str:
        """Return a small table for a notebook, which asks for it by this name."""
        counts = self.counts
        parts = f"{counts['train']:,} training, {counts['valid']:,} validation, {counts['test']:,} test"
        lines = {
            "users, items": f"{counts['users']:,}, {counts['items']:,}",
            "interactions": f"{counts['interactions']:,} ({parts})",
            "item features": ", ".join(self.modalities) or "none",
            "split": f"{self.split.kind}, {self.split_hash[:_DIGITS]}",
            "folder": str(self.folder),
        }
        rows = "".join(
            f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in lines.items()
        )
        return f"<div><strong>{html.escape(self.name)}</strong><table>{rows}</table></div>"

    def __repr__(self) -> str:
        counts = self.counts
        return (
            f"LoadedDataset({self.name}: {counts['users']:,} users, {counts['items']:,} items, "
            f"{counts['interactions']:,} interactions, split {self.split_hash[:_DIGITS]})"
        )


def read_folder(folder: Path, split: str | None = None) -> LoadedDataset:
    """Read the folder of a prepared dataset.

    Args:
        folder: the folder.
        split: value of `--split`; None splits by leave-one-out, or as the dataset itself says.

    Raises:
        DataError: it is no such folder, its files are faulty, or it cannot be split so.
        HellmError: the split is unknown, or a value of it is wrong.
    """
    if not is_prepared(folder):
        raise DataError(f"there is no folder {folder}; name a folder that hellm-recbole prepare has written")
    return LoadedDataset(*split_as_named(load_dataset(folder, modalities=None), split, folder), folder)


def find_ids(tokens: Sequence[Any], known: npt.NDArray[np.str_], what: str, dataset: str) -> IdArray:
    """Find the ids of tokens.

    Args:
        tokens: [N] tokens of users or items.
        known: [n + 1] token of each id; entry 0 is "".
        what: users or items, for the message.
        dataset: name of the dataset, for the message.

    Returns:
        [N] ids.

    Raises:
        DataError: a token is unknown; the message names the first ones.

    >>> find_ids(["b", "a"], np.array(["", "a", "b"]), "items", "toy").tolist()
    [2, 1]
    """
    ids = {str(token): index for index, token in enumerate(known) if index}
    texts = [str(token) for token in tokens]
    unknown = [text for text in dict.fromkeys(texts) if text not in ids]
    if unknown:
        raise DataError(f"{dataset} has no {what} {list_names([repr(text) for text in unknown])}; leave them out")
    return np.array([ids[text] for text in texts], dtype=np.int64)
