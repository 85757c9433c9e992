"""Shared steps of the importers: item texts, times, given splits and feature files become tables of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.columns import format_integers, map_tokens, number_tokens, read_integers
from hellm_recbole.data.dataset import PARTS
from hellm_recbole.data.feature_files import (
    FEATURES,
    MISSING,
    TOKENS,
    FeatureMatrix,
    check_rows,
    check_tokens,
    list_features,
    read_features,
    read_matrix,
)
from hellm_recbole.data.importers.ids import BLANKS, drop_index, strip_ids
from hellm_recbole.data.importers.text import UNREADABLE, clean_text
from hellm_recbole.data.importers.untimed import describe_file_order
from hellm_recbole.data.split import leave_one_out
from hellm_recbole.data.text_rows import iterate_blocks
from hellm_recbole.data.times import TIME, order_times
from hellm_recbole.data.tsv import Table, read_lines, read_table
from hellm_recbole.errors import DataError
from hellm_recbole.types import IdArray

ITEM_TEXT = "item_text.tsv"
_MODALITY = re.compile(r"[A-Za-z0-9_-]+")
Rows = Callable[[Path, Sequence[str]], Mapping[str, int]]  # feature file, items -> row of each item


def read_item_text(source: Path) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """Read item_text.tsv, if it exists, and return its table and the atomic types of its columns."""
    path = source / ITEM_TEXT
    if not path.exists():
        return None, {}
    items = clean_items(read_table(path, typed=False))
    items = drop_index(items)
    return items, {column: "token" if column == "item_id" else "token_seq" for column in items.columns}


def clean_items(table: Table) -> pd.DataFrame:
    """Return the table of items with cleaned texts and stripped ids.

    Raises:
        DataError: the table has no column item_id, or an item has two rows.
    """
    table.require(("item_id",), "it needs a column item_id")
    table = replace(table, frame=strip_ids(table.frame, table.path.name, ("item_id",))[0])
    repeated = np.flatnonzero(table.frame["item_id"].duplicated().to_numpy())
    if len(repeated):
        row = int(repeated[0])
        raise DataError(
            f"{table.line(row)}: item {table.frame['item_id'].iloc[row]!r} occurs before; keep one of its rows"
        )
    texts = {column: table.frame[column].map(clean_text) for column in table.frame.columns if column != "item_id"}
    return table.frame.assign(**texts)


def add_times(table: Table, columns: pd.DataFrame, used: Collection[str]) -> tuple[pd.DataFrame, bool, list[str]]:
    """Add the table's timestamps to `columns`; without timestamps, number the rows of each user in file order.

    Args:
        table: table of the source.
        columns: columns user_id, perhaps split, and others from the table, perhaps under other names.
        used: names in the table of the columns that hold ids or splits.

    Returns:
        The columns with stripped ids and times, whether the times are known, and warnings.

    Raises:
        DataError: a time is not a finite number.
    """
    columns, warnings = strip_ids(columns, table.path.name)
    if TIME in table.frame:
        table.numbers(TIME)
        return columns.assign(timestamp=table.frame[TIME]), True, warnings
    order_warning = describe_file_order(
        table.path,
        table.frame,
        used,
        given_split="split" in columns,
        advice=f"name the column of times {TIME}{':float' * bool(table.types)}",
    )
    return columns.assign(timestamp=number_rows(columns)), False, [order_warning, *warnings]


def number_rows(inter: pd.DataFrame) -> pd.Series[str]:
    """Return [E] the position of each interaction among the interactions of its user, from 0, as text."""
    counts = inter.groupby("user_id", observed=True).cumcount()
    return format_integers(counts.to_numpy().astype(np.int64)).set_axis(inter.index)


def assemble(
    source: Path,
    inter: pd.DataFrame,
    types: Mapping[str, str],
    items: pd.DataFrame | None,
    item_types: Mapping[str, str],
    *,
    time_known: bool,
    rows: Rows | None,
    files: Sequence[Path],
    warnings: Sequence[str] = (),
) -> AtomicData:
    """Combine interactions, items and the feature files of the source folder into one `AtomicData`.

    Columns are put in the order of the format. Times that are the numbers 0, 1, 2 ... of each user's interactions count
    as positions, not as known times.

    Args:
        source: folder with the feature files.
        inter: [E] interactions, every column as text.
        types: further column -> atomic type.
        items: table with item_id and text columns; None if there are no texts.
        item_types: column of `items` -> atomic type.
        time_known: whether `timestamp` is a time, not only an order.
        rows: function that returns the row of each item in a feature file without a token file; None if each
            feature file needs a token file.
        files: files that were read.
        warnings: sentences for the manifest.

    Raises:
        DataError: there is no interaction, an id is empty or holds a quote, the name of a column is not valid, or the
            features do not fit the items.
    """
    notes, ordered = list(warnings), time_known
    _check_interactions(files[0], inter)
    _check_column_names(files[0], [*inter.columns, *([] if items is None else items.columns)])
    first = [column for column in ("user_id", "item_id", "timestamp", "split") if column in inter]
    rest = [column for column in inter.columns if column not in first]
    fixed = {"user_id": "token", "item_id": "token", "timestamp": "float", "split": "token"}
    if time_known and _are_positions(inter):
        time_known = False
        notes.append("the times count each user's interactions from 0, so they were taken for positions")
    features, feature_files, unused_rows = _read_feature_files(
        source, [str(token) for token in inter["item_id"].unique()], rows
    )
    return AtomicData(
        inter=inter[first + rest],
        inter_types={**types, **{column: fixed[column] for column in first}},
        items=items,
        item_types=item_types,
        features=features,
        time_known=time_known,
        ordered=ordered,
        files=[*files, *feature_files],
        warnings=[*notes, *unused_rows],
    )


def _check_interactions(path: Path, inter: pd.DataFrame) -> None:
    """Refuse a table without interactions, and ids and times that are empty or that RecBole cannot read."""
    if inter.empty:
        raise DataError(f"{path} holds no interaction; give it at least one")
    for column in ("user_id", "item_id", "timestamp"):
        if (inter[column] == "").any():
            raise DataError(f"{path}: {column} is empty; give every interaction one")
        if (unreadable := _find_unreadable(inter[column])) is not None:
            raise DataError(
                f"{path}: {column} {unreadable!r} holds a quote, a tab or another control character, which RecBole "
                "cannot read; remove it"
            )


def _find_unreadable(column: pd.Series[str]) -> str | None:
    """Return the first field that RecBole cannot read; None if there is none."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        tokens = pd.Series(column.cat.categories)
        bad = np.flatnonzero(tokens.str.contains(UNREADABLE).to_numpy(dtype=bool))
        rows = np.flatnonzero(np.isin(column.cat.codes.to_numpy(), bad)) if len(bad) else bad
        return str(column.iloc[int(rows[0])]) if len(rows) else None
    if read_integers(column) is not None:
        return None
    for block in iterate_blocks(len(column)):
        fields = column.iloc[block]
        if (unreadable := fields.str.contains(UNREADABLE).to_numpy(dtype=bool)).any():
            return str(fields.iloc[int(unreadable.argmax())])
    return None


def _check_column_names(path: Path, columns: Sequence[str]) -> None:
    """Refuse names that the header of an atomic file cannot hold; there, a colon separates a name from its type."""
    for column in columns:
        if not column or ":" in column or UNREADABLE.search(column):
            raise DataError(f"{path}: column name {column!r} is empty or holds a colon, a quote or a tab; rename it")


def _order_by_user(inter: pd.DataFrame, time: IdArray) -> tuple[IdArray, IdArray]:
    """Return [E] the user ids from 1, and [E] the order by user and time; equal times keep the order of the file."""
    user = number_tokens(inter["user_id"])[0] + 1
    return user, np.lexsort((time, user))


def _are_positions(inter: pd.DataFrame) -> bool:
    """Return whether the times of each user are 0, 1, 2 and so on."""
    time, ranked = order_times(inter[TIME])
    if ranked:
        return False
    user, order = _order_by_user(inter, time)
    starts = np.cumsum(np.bincount(user))
    return bool(np.array_equal(time[order], np.arange(len(user)) - starts[user[order] - 1]))


def recognize_leave_one_out(data: AtomicData) -> AtomicData:
    """Drop a given split that equals leave-one-out in time order, so that results may share a table with the same data.

    Equal times keep the order of the file. Data whose file has no times keep their split.
    """
    inter = data.inter
    if "split" not in inter or not data.ordered:
        return data
    user, order = _order_by_user(inter, order_times(inter[TIME])[0])
    given = map_tokens(inter["split"], {part: code for code, part in enumerate(PARTS)})
    if not np.array_equal(leave_one_out(user[order], int(user.max()))[0], given[order]):
        return data
    note = "the given split is leave-one-out in time order and was read as that"
    return replace(data, inter=inter.drop(columns="split"), warnings=[*data.warnings, note])


def _read_feature_files(
    source: Path, items: Sequence[str], rows: Rows | None
) -> tuple[dict[str, FeatureMatrix], list[Path], list[str]]:
    """Return the feature matrices of a folder, the files that were read, and sentences about unused rows."""
    features: dict[str, FeatureMatrix] = {}
    files: list[Path] = []
    warnings = []
    for modality in list_features(source):
        path = source / f"{modality}{FEATURES}"
        token_file, missing_file = (path.with_name(f"{modality}{ending}") for ending in (TOKENS, MISSING))
        if not _MODALITY.fullmatch(modality):
            raise DataError(f"{path}: name of modality {modality!r}; use only letters, digits, '_' and '-'")
        files.append(path)
        if token_file.exists():
            matrix = _read_by_token(path, token_file, items)
            files.append(token_file)
        elif rows is not None:
            matrix, unused = _read_by_row(path, items, rows(path, items))
            if unused:
                warnings.append(f"{path.name}: {unused} rows belong to no item of the interactions and were left out")
        else:
            raise DataError(
                f"{path} has no {token_file.name} next to it; write it, with the item of each row on its own line"
            )
        missing: list[str] = []
        if missing_file.is_file():
            files.append(missing_file)
            missing = sorted({token.strip(BLANKS) for token in read_lines(missing_file)} & set(items))
        about = {"encoder": None, "coverage": 1.0 - len(missing) / len(items)}
        features[modality] = FeatureMatrix(matrix.tokens, matrix.values, about, missing)
    return features, files, warnings


def _read_by_token(path: Path, token_file: Path, items: Sequence[str]) -> FeatureMatrix:
    """Read features that have a token file; items without a row are filled later."""
    matrix = read_features(path)
    tokens = [token.strip(BLANKS) for token in matrix.tokens]
    if len(set(tokens)) < len(tokens):
        repeated = next(token for token in tokens if tokens.count(token) > 1)
        raise DataError(
            f"{token_file}: token {repeated!r} occurs twice, once with blanks around it; keep one of its rows"
        )
    if not set(items).issuperset(tokens):  # probably ids of another kind, not only items without a row
        check_tokens(path, tokens, items, set())
    return replace(matrix, tokens=tokens)


def _read_by_row(path: Path, items: Sequence[str], rows: Mapping[str, int]) -> tuple[FeatureMatrix, int]:
    """Read features whose row numbers belong to items, and return them with the number of unused rows."""
    matrix = read_matrix(path)
    absent = [item for item in items if rows[item] >= len(matrix)]
    check_tokens(path, [item for item in items if item not in set(absent)], items, set())
    values = matrix[[rows[item] for item in items]]
    check_rows(path, values, items)
    return FeatureMatrix(items, values, {}), len(matrix) - len(values)


def number_feature_rows(path: Path, items: Sequence[str]) -> dict[str, int]:
    """Return item -> row in a feature file, for sources whose item ids are row numbers (see `Rows`).

    Args:
        path: feature file, for messages.
        items: item ids.

    Raises:
        DataError: an id is not a row number.
    """
    for item in items:
        if not (item.isascii() and item.isdigit() and str(int(item)) == item):
            raise DataError(
                f"{path}: item {item!r} is not a row number; write a token file next to the features, with "
                "the item of each row on its own line"
            )
    return {item: int(item) for item in items}
