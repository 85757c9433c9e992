"""Make a split of one of the names in `settings`: divide, leave out what cannot be evaluated, and say what that was.

Three rules hold for all of them. A target of a user who has no training interaction is left out. If a user has an
item twice in one part of targets, it is one target. With `time-line`, users and items without a training interaction
are not in the dataset at all, neither as targets nor as candidates nor as histories, and the others are numbered in
the order in which the training part has them: so nothing after an instant changes anything before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from typing_extensions import TypedDict

from hellm_recbole.data.dataset import PARTS, Dataset
from hellm_recbole.data.split import TEST, TRAIN, VALID, Split, SplitKind, sort_by_time, split_dataset
from hellm_recbole.data.splits.parts import divide_by_ratio, divide_by_time, draw_cold_items, find_cuts
from hellm_recbole.data.splits.settings import (
    COLD_ITEMS,
    TIME_LINE,
    ColdItemSettings,
    ShareSettings,
    TimeLineSettings,
    describe_instant,
    parse_instant,
    read_split_settings,
    split_option,
    write_kind,
)
from hellm_recbole.data.times import order_times
from hellm_recbole.errors import DataError
from hellm_recbole.types import IdArray, Targets

Bools = npt.NDArray[np.bool_]


class SplitDetails(TypedDict):
    """What a split left out, and its instants or its cold items; for `record.json`.

    `valid_from` and `test_from` are times of the source (`time-line`); `valid_items` and `test_items` are numbers of
    items that are held out of training (`cold-items`). `unknown_users` and `unknown_items` have targets but no training
    interaction; `left_out` counts the interactions that are no targets for that reason, and `repeated` those that
    repeat a target.
    """

    valid_from: str | None
    test_from: str | None
    valid_items: int | None
    test_items: int | None
    unknown_users: int
    unknown_items: int
    left_out: int
    repeated: int


@dataclass(frozen=True)
class NamedSplit(Split):
    """A split of this folder.

    Attributes:
        details: what it left out, and its instants or cold items.
    """

    details: SplitDetails | None = None


@dataclass(frozen=True)
class _Division:
    """The part of each interaction, before anything is left out.

    Attributes:
        part: [E] index in PARTS, for interactions sorted by user, then time.
        n_short_users: number of users with too few interactions to be evaluated.
        details: those details that are known.
    """

    part: IdArray
    n_short_users: int = 0
    details: dict[str, Any] | None = None


def split_by_name(dataset: Dataset, text: str, read_times: Callable[[], Sequence[str]]) -> tuple[Dataset, NamedSplit]:
    """Split a dataset by one of the names.

    Args:
        dataset: the dataset; a split of its own is not used.
        text: value of `--split`, such as `ratio` or `ratio:test_share=0.2`.
        read_times: function that returns the [E] times of the source in file order, as text.

    Returns:
        The dataset with the users and items of the split; the split.

    Raises:
        SettingsError: a value is wrong.
        DataError: a part has no interaction, or the dataset has no times and the split needs them.
    """
    settings, (name, _) = read_split_settings(text), split_option(text)
    kind, order = write_kind(name, settings), sort_by_time(dataset)
    division = _divide(dataset, order, name, settings, read_times)
    user, item, part = dataset.user[order], dataset.item[order], division.part
    known_user, known_item = (
        np.bincount(ids[part == TRAIN], minlength=count + 1) > 0
        for ids, count in ((user, dataset.n_users), (item, dataset.n_items))
    )
    if name != TIME_LINE:
        known_item[:] = True
    unknown = (part != TRAIN) & ~(known_user[user] & known_item[item])
    repeated = _find_repeated(user, item, part, unknown)
    kept = np.zeros(len(order), dtype=bool)
    kept[order] = ~(unknown | repeated)
    _refuse_empty_parts(dataset, kind, part[kept[order]])
    details = _count_left_out(user, item, known_user, known_item, unknown, repeated, division)
    smaller, rows = _restrict(dataset, kept, _number_known(dataset, order, part, known_user, known_item, name))
    in_file_order = np.empty(len(order), dtype=np.int8)
    in_file_order[order] = part
    split = split_dataset(replace(smaller, part=in_file_order[rows]))
    values = {field.name: getattr(split, field.name) for field in fields(Split)}
    values |= {"kind": cast(SplitKind, kind), "n_short_users": division.n_short_users}
    return smaller, NamedSplit(**{**values, "sha256": hash_split(split, kind)}, details=details)


def _divide(
    dataset: Dataset, order: IdArray, name: str, settings: ShareSettings, read_times: Callable[[], Sequence[str]]
) -> _Division:
    """Divide the interactions, sorted by `order`, by the rule of a name."""
    shares = settings.valid_share, settings.test_share
    if isinstance(settings, TimeLineSettings):
        if not dataset.time_known or dataset.time is None:
            raise DataError(
                f"dataset {dataset.name} has no times, which --split {TIME_LINE} needs; prepare it from a source with "
                "times, or choose another split"
            )
        time, cuts, shown = _find_instants(read_times(), settings)
        details = dict(zip(("valid_from", "test_from"), shown, strict=True))
        return _Division(divide_by_time(time[order], *cuts), details=details)
    if isinstance(settings, ColdItemSettings):
        part_of = draw_cold_items(dataset.item_tokens[1:], *shares, settings.seed)
        numbers = {"valid_items": int(np.sum(part_of == VALID)), "test_items": int(np.sum(part_of == TEST))}
        return _Division(part_of[dataset.item[order] - 1], details=numbers)
    return _Division(*divide_by_ratio(dataset.user[order], dataset.n_users, *shares))


def _find_instants(
    times: Sequence[str], settings: TimeLineSettings
) -> tuple[IdArray, tuple[int, int], tuple[str, str]]:
    """Find the instants that cut the time line.

    Args:
        times: [E] times of the source.
        settings: settings of the split.

    Returns:
        [E] the times as whole numbers of the same order; the first instants of validation and of test among these
        numbers; the same as times of the source.

    Raises:
        DataError: the instants are not in order.
        SettingsError: an instant is no time.
    """
    if settings.valid_from is None or settings.test_from is None:
        numbers, _ = order_times(pd.Series(times, dtype="str"))
        cuts = find_cuts(numbers, settings.valid_share, settings.test_share)
        first = {cut: times[int(np.flatnonzero(numbers == cut)[0])] for cut in cuts}
        shown = (first[cuts[0]], first[cuts[1]])
    else:
        largest = max(map(float, times))
        shown = (parse_instant(settings.valid_from, largest), parse_instant(settings.test_from, largest))
        everything, _ = order_times(pd.Series([*times, *shown], dtype="str"))  # exact, whatever the unit
        numbers, cuts = everything[:-2], (int(everything[-2]), int(everything[-1]))
    if cuts[0] >= cuts[1]:
        raise DataError(
            f"--split {TIME_LINE}: validation would begin at {describe_instant(shown[0])} and test at "
            f"{describe_instant(shown[1])}; choose shares or instants so that validation begins earlier"
        )
    return numbers, cuts, shown


def _find_repeated(user: IdArray, item: IdArray, part: IdArray, unknown: Bools) -> Bools:
    """Find the targets that repeat an earlier target of the same user, item and part, [E]."""
    repeated = np.zeros(len(user), dtype=bool)
    targets = np.flatnonzero((part != TRAIN) & ~unknown)
    triples = pd.DataFrame({"user": user[targets], "item": item[targets], "part": part[targets]})
    repeated[targets] = triples.duplicated().to_numpy()
    return repeated


def _refuse_empty_parts(dataset: Dataset, kind: str, part: IdArray) -> None:
    """Refuse a split of which a part has no interaction."""
    for code, name in enumerate(PARTS):
        if not np.any(part == code):
            raise DataError(
                f"dataset {dataset.name}: --split {kind} leaves no interaction for the {name} part; choose other values"
            )


def _count_left_out(
    user: IdArray,
    item: IdArray,
    known_user: Bools,
    known_item: Bools,
    unknown: Bools,
    repeated: Bools,
    division: _Division,
) -> SplitDetails:
    """Count what is left out, see `SplitDetails`."""
    instants: dict[str, Any] = {**(division.details or {})}
    return SplitDetails(
        valid_from=instants.get("valid_from"),
        test_from=instants.get("test_from"),
        valid_items=instants.get("valid_items"),
        test_items=instants.get("test_items"),
        unknown_users=len(np.unique(user[~known_user[user]])),
        unknown_items=len(np.unique(item[~known_item[item]])),
        left_out=int(unknown.sum()),
        repeated=int(repeated.sum()),
    )


def _number_known(
    dataset: Dataset, order: IdArray, part: IdArray, known_user: Bools, known_item: Bools, name: str
) -> tuple[IdArray, IdArray]:
    """List the users and the items that stay, in the order of their new ids.

    They are numbered in the order of the training interactions in the file. Where everything stays, so do the ids.
    """
    rows = np.sort(order[part == TRAIN])  # training interactions in file order
    numbered = []
    for ids, known in ((dataset.user, known_user), (dataset.item, known_item)):
        if known[1:].all() and name != TIME_LINE:
            numbered.append(np.arange(1, len(known)))
        else:
            found, first = np.unique(ids[rows], return_index=True)
            numbered.append(found[np.argsort(first)])
    return numbered[0], numbered[1]


def _restrict(dataset: Dataset, kept: Bools, numbered: tuple[IdArray, IdArray]) -> tuple[Dataset, IdArray]:
    """Keep some interactions, users and items of a dataset.

    Args:
        dataset: the dataset.
        kept: [E] whether an interaction is kept, in file order.
        numbered: users and items that are kept, in the order of their new ids.

    Returns:
        The smaller dataset, which is not that of the paper; the rows of its interactions in the larger one.
    """
    users, items = numbered
    rows = np.flatnonzero(kept)
    new_user, new_item = np.zeros(dataset.n_users + 1, np.int64), np.zeros(dataset.n_items + 1, np.int64)
    new_user[users], new_item[items] = np.arange(1, len(users) + 1), np.arange(1, len(items) + 1)
    smaller = replace(
        dataset,
        user_tokens=dataset.user_tokens[np.append(0, users)],
        user=new_user[dataset.user[rows]],
        item=new_item[dataset.item[rows]],
        time=None if dataset.time is None else dataset.time[rows],
        part=None if dataset.part is None else dataset.part[rows],
        paper=None,  # the paper reports results on another split
    )
    if not np.array_equal(items, np.arange(1, dataset.n_items + 1)):
        chosen = np.append(0, items)
        smaller = replace(
            smaller,
            item_tokens=dataset.item_tokens[chosen],
            features={name: values[chosen] for name, values in dataset.features.items()},
            item_text=tuple(dataset.item_text[index] for index in chosen) if dataset.item_text else (),
            covered={name: values[chosen] for name, values in dataset.covered.items()},
        )
    return smaller, rows


def hash_split(split: Split, kind: str) -> str:
    """Compute the SHA-256 of a kind and of the (user token, item token, part) triples.

    Users are sorted by token. The triples of a user are those of training, validation and test, each in time order.
    """
    triples: list[list[str]] = [[] for _ in range(split.n_users + 1)]
    train = Targets(split.train.repeat_users(), split.train.items)
    for part, pairs in zip(PARTS, (train, split.valid, split.test), strict=True):
        for user, token in zip(pairs.user.tolist(), split.item_tokens[pairs.item].tolist(), strict=True):
            triples[user].append(f"{split.user_tokens[user]}\t{token}\t{part}\n")
    digest = hashlib.sha256(f"{kind}\n".encode())
    for user in np.argsort(split.user_tokens[1:], kind="stable") + 1:
        digest.update("".join(triples[user]).encode())
    return digest.hexdigest()


def describe_details(kind: str, details: SplitDetails) -> str:
    """Describe in one sentence how a split cuts, and what it leaves out."""
    parts = []
    if details["valid_from"] is not None and details["test_from"] is not None:
        valid, test = describe_instant(details["valid_from"]), describe_instant(details["test_from"])
        parts.append(f"validation from {valid}, test from {test}")
    if details["test_items"] is not None:
        parts.append(
            f"items without training: {details['valid_items']:,} for validation, {details['test_items']:,} for test"
        )
    if kind.startswith((TIME_LINE, COLD_ITEMS)):
        unknown = f"{details['unknown_users']:,} users"
        unknown += f" and {details['unknown_items']:,} items" if kind.startswith(TIME_LINE) else ""
        parts.append(
            f"{unknown} without a training interaction are left out, and so are {details['left_out']:,} interactions "
            "with them"
        )
    if details["repeated"]:
        parts.append(f"{details['repeated']:,} repetitions of a target are left out")
    return f"split {kind}: {'; '.join(parts) or 'nothing is left out'}"
