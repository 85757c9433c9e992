"""Splits of installed packages: functions from interactions to parts. `split_as_named` finds any split by its name.

An entry point of the group `hellm_recbole.splits` is a function of `Interactions` that returns the part of each of
them. `--split NAME` uses it. The kind of such a split is `plug-in NAME`, and its hash depends on the name and on the
parts, so results of two kinds of split never share a table.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hellm_recbole.config.plugin_points import SPLITS, list_points
from hellm_recbole.data.dataset import PARTS, Dataset, read_source_times
from hellm_recbole.data.split import Split, sort_by_time, split_dataset
from hellm_recbole.data.splits.named import split_by_name
from hellm_recbole.data.splits.settings import KIND as BUILT_IN_KIND
from hellm_recbole.data.splits.settings import NAMES, OPTION, split_option
from hellm_recbole.data.stored_split import split_prepared
from hellm_recbole.errors import PluginError, shorten
from hellm_recbole.plugins.loading import PluginRecord, convert_failures, load_point, make_record, select_point
from hellm_recbole.types import IdArray

TRAIN, VALID, TEST = range(3)  # parts that a function returns
KIND = "plug-in "  # start of the kind of such a split


@dataclass(frozen=True)
class Interactions:
    """All interactions of a dataset, sorted by user and then by time; for equal times, file order decides.

    Attributes:
        user: [E] user ids, 1..U.
        item: [E] item ids, 1..I.
        time: [E] timestamps; None if the dataset has none.
        n_users: number of users, U.
        n_items: number of items, I.
    """

    user: IdArray
    item: IdArray
    time: Any
    n_users: int
    n_items: int

    def count_from_end(self) -> IdArray:
        """Count the later interactions of the same user, [E]; 0 is the user's last one.

        >>> Interactions(np.array([1, 1, 2]), np.array([5, 6, 5]), None, 2, 6).count_from_end().tolist()
        [1, 0, 0]
        """
        ends = np.cumsum(np.bincount(self.user, minlength=self.n_users + 1))
        return ends[self.user] - 1 - np.arange(len(self.user))


def split_as_named(dataset: Dataset, text: str | None, folder: Path) -> tuple[Dataset, Split]:
    """Split a dataset as `--split` says.

    Args:
        dataset: the dataset.
        text: value of the option: a built-in split, perhaps with values, or one of an installed package; None splits
            by leave-one-out, or as the dataset itself says.
        folder: folder of the prepared dataset, which has the times of the source.

    Returns:
        The dataset with the users and items of the split; the split.

    Raises:
        PluginError: the name is unknown, or belongs to two splits.
        SettingsError: a value is wrong.
        DataError: a part has no interaction, or the dataset lacks what the split needs.
    """
    if text is None:
        return dataset, split_prepared(dataset, folder)
    name, values = split_option(text)
    if name not in NAMES:
        if values and any(point.name == name for point in list_points(SPLITS)):
            raise PluginError(f"{OPTION} {text}: the split {name} of an installed package takes no values")
        if all(point.name != name for point in list_points(SPLITS)):
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(NAMES)} and those of plug-ins"
            raise PluginError(f"{OPTION} {shorten(name)} is unknown; {hint}")
        return dataset, split_with_plugin(dataset, name)
    if taken := [point.title for point in list_points(SPLITS) if point.name == name]:
        raise PluginError(f"{OPTION} {name}: {taken[0]} has a split of this name, too; rename or uninstall it")
    return split_by_name(dataset, text, partial(read_source_times, folder))


def find_option(kind: str) -> str | None:
    """Return the value of `--split` that makes a kind of split; None for leave-one-out and given splits.

    >>> find_option("plug-in last-tenths"), find_option("ratio:valid_share=0.1,test_share=0.1"), find_option("given")
    ('last-tenths', 'ratio:valid_share=0.1,test_share=0.1', None)
    """
    if (plugin := re.fullmatch(rf"{KIND}(\S+)", kind)) is not None:
        return plugin[1]
    return kind if BUILT_IN_KIND.fullmatch(kind) else None


def split_with_plugin(dataset: Dataset, name: str) -> Split:
    """Split a dataset with the function of an installed package.

    Args:
        dataset: the dataset; a split of its own is not used.
        name: name of the entry point.

    Raises:
        PluginError: no package has it, or the function fails or does not return the part of each interaction.
        DataError: a part has no interaction.
    """
    point = select_point(SPLITS, name, OPTION)
    function = load_point(point)
    order = sort_by_time(dataset)
    time = None if dataset.time is None else dataset.time[order]
    given = Interactions(dataset.user[order], dataset.item[order], time, dataset.n_users, len(dataset.item_tokens) - 1)
    with convert_failures(f"split {name} of {point.title} failed"):
        parts = np.asarray(function(given))
    if parts.shape != order.shape or parts.dtype.kind not in "iu" or not np.isin(parts, (TRAIN, VALID, TEST)).all():
        raise PluginError(
            f"split {name} of {point.title} returned an array of shape {parts.shape} and type {parts.dtype}; return "
            f"0, 1 or 2 ({', '.join(PARTS)}) for each of the {len(order):,} interactions"
        )
    in_file_order = np.empty(len(order), dtype=np.int8)
    in_file_order[order] = parts
    split = split_dataset(replace(dataset, part=in_file_order))
    kind: Any = f"{KIND}{name}"
    return replace(split, kind=kind, sha256=hashlib.sha256(f"{kind}\n{split.sha256}".encode()).hexdigest())


def describe_split(kind: str) -> PluginRecord | None:
    """Describe the package of a kind of split for `record.json`; None if it is a kind of this project."""
    if not kind.startswith(KIND):
        return None
    name = kind.removeprefix(KIND)
    return make_record("split", name, select_point(SPLITS, name, OPTION))
