"""What importers share: item texts, times, given splits, feature files, all put together as tables of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hellm_recbole.data.atomic import (
    FEATURES,
    MISSING,
    PARTS,
    TOKENS,
    AtomicData,
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
from hellm_recbole.data.times import TIME, order_times
from hellm_recbole.data.tsv import Table, read_lines, read_table
from hellm_recbole.errors import DataError
from hellm_recbole.types import IdArray

ITEM_TEXT = "item_text.tsv"
_MODALITY = re.compile(r"[A-Za-z0-9_-]+")
Rows = Callable[[Path, Sequence[str]], Mapping[str, int]]  # feature file, items -> row of each item


def item_text(source: Path) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """item_text.tsv where there is one, and the atomic types of its columns."""
    path = source / ITEM_TEXT
    if not path.exists():
        return None, {}
    items = unique_items(read_table(path, typed=False))
    items = drop_index(items)
    return items, {column: "token" if column == "item_id" else "token_seq" for column in items.columns}


def unique_items(table: Table) -> pd.DataFrame:
    """The table of items, one row each, texts cleaned and ids without blanks around them."""
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
    """`columns` with the table's timestamp; without one, a user's rows are numbered in file order.

    Args:
        table: the source.
        columns: user_id, perhaps split, and others of its columns, perhaps under other names.
        used: names in the table of the columns that hold ids or parts.

    Returns:
        The columns, ids without blanks around them, whether their times are known, and what there is to warn of.

    Raises:
        DataError: a time is no finite number.
    """
    columns, warnings = strip_ids(columns, table.path.name)
    if TIME in table.frame:
        table.numbers(TIME)
        return columns.assign(timestamp=table.frame[TIME]), True, warnings
    said = describe_file_order(
        table.path,
        table.frame,
        used,
        given_split="split" in columns,
        advice=f"name the column of times {TIME}{':float' * bool(table.types)}",
    )
    return columns.assign(timestamp=number_rows(columns)), False, [said, *warnings]


def number_rows(inter: pd.DataFrame) -> pd.Series[str]:
    """[E] position of each row among its user's, from 0, as text."""
    return inter.groupby("user_id").cumcount().astype("str")


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
    """Tables, columns in the order of the format, and the feature files of the source folder.

    Times that only count each user's interactions are taken for what they are, positions.

    Args:
        source: folder with the feature files.
        inter: interactions, every column as text.
        types: column -> atomic type, of further columns.
        items: item_id and text columns, or None.
        item_types: column -> atomic type, of `items`.
        time_known: `timestamp` is a time stamp, not only an order.
        rows: says which rows are the items' in feature files without tokens; None: each needs a token file.
        files: what was read.
        warnings: sentences for the manifest.

    Raises:
        DataError: there is no interaction, an id is empty or holds a quote, a column's name cannot be written, or
            features do not fit the items.
    """
    said, ordered = list(warnings), time_known
    if inter.empty:
        raise DataError(f"{files[0]} holds no interaction; give it at least one")
    _check_columns(files[0], [*inter.columns, *([] if items is None else items.columns)])
    first = [column for column in ("user_id", "item_id", "timestamp", "split") if column in inter]
    rest = [column for column in inter.columns if column not in first]
    fixed = {"user_id": "token", "item_id": "token", "timestamp": "float", "split": "token"}
    for column in ("user_id", "item_id", "timestamp"):
        if (inter[column] == "").any():
            raise DataError(f"{files[0]}: {column} is empty; give every interaction one")
        if (unreadable := inter[column].str.contains(UNREADABLE)).any():
            raise DataError(
                f"{files[0]}: {column} {inter[column][unreadable].iloc[0]!r} holds a quote, a tab or another control "
                "character; RecBole cannot read it back"
            )
    if time_known and _are_positions(inter):
        time_known = False
        said.append("the times count each user's interactions from 0, so they were taken for positions")
    features, read, unused = _features(source, [str(token) for token in inter["item_id"].unique()], rows)
    return AtomicData(
        inter=inter[first + rest],
        inter_types={**types, **{column: fixed[column] for column in first}},
        items=items,
        item_types=item_types,
        features=features,
        time_known=time_known,
        ordered=ordered,
        files=[*files, *read],
        warnings=[*said, *unused],
    )


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    """Names must survive the header of an atomic file, where a type follows a colon."""
    for column in columns:
        if not column or ":" in column or UNREADABLE.search(column):
            raise DataError(f"{path}: column name {column!r} is empty or holds a colon, a quote or a tab; rename it")


def _by_user(inter: pd.DataFrame, time: IdArray) -> tuple[IdArray, IdArray]:
    """[E] user from 1, and the order by user and time, equal times in file order."""
    user = pd.factorize(inter["user_id"])[0].astype(np.int64) + 1
    return user, np.lexsort((time, user))


def _are_positions(inter: pd.DataFrame) -> bool:
    """Whether each user's times are 0, 1, 2 and so on."""
    time, ranked = order_times(inter[TIME])
    user, order = _by_user(inter, time)
    starts = np.cumsum(np.bincount(user))
    return not ranked and bool(np.array_equal(time[order], np.arange(len(user)) - starts[user[order] - 1]))


def recognize_modalities(data: AtomicData) -> AtomicData:
    """A given split that is leave-one-out in time order read as such, so that it may share a table with the same data.

    Equal times stand in file order. Data whose file has no times keep their split.
    """
    inter = data.inter
    if "split" not in inter or not data.ordered:
        return data
    user, order = _by_user(inter, order_times(inter[TIME])[0])
    given = inter["split"].map({part: code for code, part in enumerate(PARTS)}).to_numpy(np.int64)
    if not np.array_equal(leave_one_out(user[order], int(user.max()))[0], given[order]):
        return data
    said = "the given split is leave-one-out in time order and was read as that"
    return replace(data, inter=inter.drop(columns="split"), warnings=[*data.warnings, said])


def _features(
    source: Path, items: Sequence[str], rows: Rows | None
) -> tuple[dict[str, FeatureMatrix], list[Path], list[str]]:
    """Feature matrices of a folder, the files they were read from, and sentences on rows left out."""
    features: dict[str, FeatureMatrix] = {}
    files: list[Path] = []
    warnings = []
    for modality in list_features(source):
        path = source / f"{modality}{FEATURES}"
        tokens, listed = (path.with_name(f"{modality}{ending}") for ending in (TOKENS, MISSING))
        if not _MODALITY.fullmatch(modality):
            raise DataError(f"{path}: name of modality {modality!r}; use letters, digits, '_' and '-'")
        files.append(path)
        if tokens.exists():
            matrix = _by_token(path, tokens, items)
            files.append(tokens)
        elif rows is not None:
            matrix, unused = _by_row(path, items, rows(path, items))
            if unused:
                warnings.append(f"{path.name}: {unused} rows belong to no item of the interactions and were left out")
        else:
            raise DataError(f"{path} has no {tokens.name} beside it; write there the item of each row, one a line")
        missing: list[str] = []
        if listed.is_file():
            files.append(listed)
            missing = sorted({token.strip(BLANKS) for token in read_lines(listed)} & set(items))
        about = {"encoder": None, "coverage": 1.0 - len(missing) / len(items)}
        features[modality] = FeatureMatrix(matrix.tokens, matrix.values, about, missing)
    return features, files, warnings


def _by_token(path: Path, token_file: Path, items: Sequence[str]) -> FeatureMatrix:
    """Features by token; those of items without a row are filled when all is read."""
    matrix = read_features(path)
    tokens = [token.strip(BLANKS) for token in matrix.tokens]
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise DataError(f"{token_file}: token {twice!r} occurs twice, once with blanks around it; keep one of its rows")
    if not set(items).issuperset(tokens):  # other ids, for all that is known, and not only some items without a row
        check_tokens(path, tokens, items, set())
    return replace(matrix, tokens=tokens)


def _by_row(path: Path, items: Sequence[str], rows: Mapping[str, int]) -> tuple[FeatureMatrix, int]:
    """Features by row number, and how many rows are no item's."""
    matrix = read_matrix(path)
    without = [item for item in items if rows[item] >= len(matrix)]
    check_tokens(path, [item for item in items if item not in set(without)], items, set())
    values = matrix[[rows[item] for item in items]]
    check_rows(path, values, items)
    return FeatureMatrix(items, values, {}), len(matrix) - len(values)


def number_feature_rows(path: Path, items: Sequence[str]) -> dict[str, int]:
    """Item -> row, for sources whose item ids are row numbers (`Rows`).

    Raises:
        DataError: an id is not a row number.
    """
    for item in items:
        if not (item.isascii() and item.isdigit() and str(int(item)) == item):
            raise DataError(
                f"{path}: item {item!r} is not a row number; write the item of each row of the features into a token "
                "file beside them"
            )
    return {item: int(item) for item in items}
