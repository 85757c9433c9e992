"""Importers: from the files that a dataset is published in to RecBole's atomic tables. One function for each kind.

`sequences`  user_sequences.txt (`user item item ...`, oldest first) and item_text.tsv (item_id and text columns)
`splits`     interactions.tsv (user_id, item_id, split, perhaps timestamp) and <modality>_feat.npy, row = item id
`mmrec`      NAME.inter (userID, itemID, x_label 0/1/2, perhaps timestamp) and <modality>_feat.npy, row = item id
`recbole`    NAME.inter and perhaps NAME.item, atomic files with typed headers

Every kind also takes `<modality>_feat.npy` with `<modality>_feat.tokens.txt` beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hellm_recbole.data.atomic import (
    FEATURES,
    PARTS,
    TOKENS,
    AtomicData,
    FeatureMatrix,
    check_rows,
    check_tokens,
    feature_names,
    part_codes,
    read_features,
    read_matrix,
)
from hellm_recbole.data.tsv import Table, read_lines, read_table
from hellm_recbole.errors import DataError

SEQUENCES, ITEM_TEXT, INTERACTIONS = "user_sequences.txt", "item_text.tsv", "interactions.tsv"
_UNREADABLE = re.compile(r'[\x00-\x1f\x7f"]+')  # RecBole's csv reader would take these for quotes, fields or lines


@dataclass(frozen=True)
class Kind:
    """How a kind of source is found and read.

    Attributes:
        main_file: the file without which there is no source; `{name}` stands for the dataset.
        files: all that it reads, in words.
        read: from folder and dataset name to tables.
    """

    main_file: str
    files: str
    read: Callable[[Path, str], AtomicData]


def clean(text: str) -> str:
    r"""Text on one line, without quotes and tabs, single spaces.

    >>> clean('12" brush\t(red)  ')
    '12 brush (red)'
    """
    return " ".join(_UNREADABLE.sub(" ", text).split())


def read_sequences(source: Path, name: str) -> AtomicData:
    """Kind `sequences`; the position in the sequence stands for the time."""
    path = source / SEQUENCES
    users: list[str] = []
    items: list[str] = []
    positions: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        user, *sequence = line.split() or [""]
        if not sequence:
            raise DataError(f"{path}:{number}: needs a user and at least one item; remove the line or complete it")
        if user in seen:
            raise DataError(f"{path}:{number}: user {user!r} is on line {seen[user]} already; join the two lines")
        seen[user] = number
        users += [user] * len(sequence)
        items += sequence
        positions += map(str, range(len(sequence)))
    inter = pd.DataFrame({"user_id": users, "item_id": items, "timestamp": positions}, dtype="str")
    texts, text_types = _item_text(source)
    return _assemble(source, inter, {}, texts, text_types, time_known=False, rows_are_ids=False, files=[path])


def read_splits(source: Path, name: str) -> AtomicData:
    """Kind `splits`; the parts are as given."""
    table = read_table(source / INTERACTIONS, typed=False)
    table.require(("user_id", "item_id", "split"), "it needs the header user_id, item_id, split")
    part_codes(table)  # every field of `split` is checked here, where its line is known
    inter, time_known = _with_time(table, table.frame[["user_id", "item_id", "split"]])
    texts, text_types = _item_text(source)
    files = [table.path]
    return _assemble(source, inter, {}, texts, text_types, time_known=time_known, rows_are_ids=True, files=files)


def read_mmrec(source: Path, name: str) -> AtomicData:
    """Kind `mmrec`: the parts are in `x_label`."""
    table = read_table(source / f"{name}.inter", typed=False)
    table.require(("userID", "itemID", "x_label"), "it needs the header userID, itemID, x_label")
    labels = table.frame["x_label"]
    bad = np.flatnonzero(~labels.isin(["0", "1", "2"]).to_numpy(dtype=bool))
    if len(bad):
        row = int(bad[0])
        raise DataError(f"{table.line(row)}: x_label is {labels.iloc[row]!r}, not 0 (train), 1 (valid) or 2 (test)")
    parts = labels.map({str(code): part for code, part in enumerate(PARTS)})
    columns = pd.DataFrame({"user_id": table.frame["userID"], "item_id": table.frame["itemID"], "split": parts})
    inter, time_known = _with_time(table, columns)
    files = [table.path]
    return _assemble(source, inter, {}, None, {}, time_known=time_known, rows_are_ids=True, files=files)


def read_recbole(source: Path, name: str) -> AtomicData:
    """Kind `recbole`: all columns are kept."""
    table = read_table(source / f"{name}.inter", typed=True)
    table.require(("user_id", "item_id"), "name its user and item columns user_id:token and item_id:token")
    if "split" in table.frame:
        part_codes(table)
    for column, kind in table.types.items():
        if kind == "float":
            table.numbers(column)
    inter, time_known = _with_time(table, table.frame)
    files, items, types = [table.path], None, {}
    if (path := source / f"{name}.item").exists():
        described = read_table(path, typed=True)
        items, types = _unique_items(described), dict(described.types)
        files.append(path)
    return _assemble(source, inter, table.types, items, types, time_known=time_known, rows_are_ids=False, files=files)


KINDS: Mapping[str, Kind] = {
    "sequences": Kind(SEQUENCES, f"{SEQUENCES} and {ITEM_TEXT}", read_sequences),
    "splits": Kind(INTERACTIONS, f"{INTERACTIONS} and its feature files", read_splits),
    "mmrec": Kind("{name}.inter", "its .inter and feature files", read_mmrec),
    "recbole": Kind("{name}.inter", "its .inter and .item files", read_recbole),
}


def _item_text(source: Path) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """item_text.tsv where there is one, and the atomic types of its columns."""
    path = source / ITEM_TEXT
    if not path.exists():
        return None, {}
    items = _unique_items(read_table(path, typed=False))
    return items, {column: "token" if column == "item_id" else "token_seq" for column in items.columns}


def _unique_items(table: Table) -> pd.DataFrame:
    """The table of items, one row each, texts cleaned."""
    table.require(("item_id",), "it needs a column item_id")
    repeated = np.flatnonzero(table.frame["item_id"].duplicated().to_numpy())
    if len(repeated):
        row = int(repeated[0])
        raise DataError(
            f"{table.line(row)}: item {table.frame['item_id'].iloc[row]!r} occurs before; keep one of its rows"
        )
    texts = {column: table.frame[column].map(clean) for column in table.frame.columns if column != "item_id"}
    return table.frame.assign(**texts)


def _with_time(table: Table, columns: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """`columns` with the table's timestamp; without one, a user's rows are numbered in file order."""
    if "timestamp" in table.frame:
        table.numbers("timestamp")
        return columns.assign(timestamp=table.frame["timestamp"]), True
    return columns.assign(timestamp=columns.groupby("user_id").cumcount().astype("str")), False


def _assemble(
    source: Path,
    inter: pd.DataFrame,
    types: Mapping[str, str],
    items: pd.DataFrame | None,
    item_types: Mapping[str, str],
    *,
    time_known: bool,
    rows_are_ids: bool,
    files: Sequence[Path],
) -> AtomicData:
    """Tables, columns in the order of the format, and the feature files of the source folder."""
    first = [column for column in ("user_id", "item_id", "timestamp", "split") if column in inter]
    rest = [column for column in inter.columns if column not in first]
    fixed = {"user_id": "token", "item_id": "token", "timestamp": "float", "split": "token"}
    for column in ("user_id", "item_id"):
        quoted = inter[column].str.contains('"', regex=False)
        if quoted.any():
            raise DataError(
                f"{files[0]}: {column} {inter[column][quoted].iloc[0]!r} holds a quote; RecBole cannot read it back"
            )
    features, warnings = {}, []
    known = [str(token) for token in inter["item_id"].unique()]
    for modality in feature_names(source):
        path = source / f"{modality}{FEATURES}"
        tokens = path.with_name(f"{modality}{TOKENS}")
        if tokens.exists():
            matrix = read_features(path)
            check_tokens(path, matrix.tokens, known, set())
            files = [*files, path, tokens]
        elif rows_are_ids:
            matrix, unused = _by_row(path, known)
            files = [*files, path]
            if unused:
                warnings.append(f"{path.name}: {unused} rows belong to no item of the interactions and were left out")
        else:
            raise DataError(f"{path} has no {tokens.name} beside it; write there the item of each row, one a line")
        features[modality] = FeatureMatrix(matrix.tokens, matrix.values, {"encoder": None, "coverage": 1.0})
    return AtomicData(
        inter=inter[first + rest],
        inter_types={**types, **{column: fixed[column] for column in first}},
        items=items,
        item_types=item_types,
        features=features,
        time_known=time_known,
        files=files,
        warnings=warnings,
    )


def _by_row(path: Path, items: Sequence[str]) -> tuple[FeatureMatrix, int]:
    """Features whose row number is the item's id, and how many rows are no item's."""
    matrix = read_matrix(path)
    for item in items:
        if not (item.isascii() and item.isdigit() and str(int(item)) == item):
            raise DataError(
                f"{path}: item {item!r} is not a row number; write the item of each row into a token file beside it"
            )
    rows = [str(row) for row in range(len(matrix))]
    check_tokens(path, rows, items, allowed=set(rows))
    values = matrix[[int(item) for item in items]]
    check_rows(path, values, items)
    return FeatureMatrix(items, values, {}), len(matrix) - len(values)
