"""Importers for the file formats of other projects: S3-Rec, E4SRec and P5, LATTICE, MMRec."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.dataset import PARTS
from hellm_recbole.data.importers.assemble import add_times, assemble, number_feature_rows, number_rows, read_item_text
from hellm_recbole.data.importers.ids import BLANKS, strip_ids
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.tsv import Table, read_lines, read_table, read_text
from hellm_recbole.errors import DataError, shorten

P5_SEQUENCES, P5_MAPS = "sequential_data.txt", "datamaps.json"
LATTICE_PARTS = {"train": "train.json", "valid": "val.json", "test": "test.json"}
LATTICE_FOLDER = "5-core"
_CORE = re.compile(r"[0-9]+-core")
_BLANKS = re.compile(f"[{BLANKS}]+")
MMREC_MAPS = ("u_id_mapping.csv", "i_id_mapping.csv")


def read_sequence_lines(path: Path) -> pd.DataFrame:
    """Read interactions from lines `user item item ...`, oldest item first; the position in a line is the time.

    Raises:
        DataError: a line is faulty; the message has its number.
    """
    users: list[str] = []
    items: list[str] = []
    positions: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        user, *sequence = _BLANKS.split(line.strip(BLANKS))  # ids may contain other white space
        if not sequence:
            raise DataError(f"{path}:{number}: the line needs a user and at least one item; complete it or remove it")
        if user in seen:
            raise DataError(f"{path}:{number}: user {user!r} is already on line {seen[user]}; join the two lines")
        seen[user] = number
        users += [user] * len(sequence)
        items += sequence
        positions += map(str, range(len(sequence)))
    return pd.DataFrame({"user_id": users, "item_id": items, "timestamp": positions}, dtype="str")


def read_s3rec(source: Path, request: Request) -> AtomicData:
    """Read kind `s3rec`; if datamaps.json exists, its `id2user` and `id2item` restore the original ids."""
    own = source / f"{request.name}.txt"
    path = own if own.is_file() else source / P5_SEQUENCES
    inter = read_sequence_lines(path)
    files, maps = [path], source / P5_MAPS
    if maps.is_file():
        content = _read_json(maps)
        for column, key in (("user_id", "id2user"), ("item_id", "id2item")):
            if not isinstance(content.get(key), dict):
                raise DataError(f"{maps}: no mapping {key!r}; it needs id2user and id2item, or leave the file out")
            inter[column] = map_ids(inter[column], _read_original_ids(content[key], maps, key), maps, key)
        files.append(maps)
    texts, text_types = read_item_text(source)
    return assemble(source, inter, {}, texts, text_types, time_known=False, rows=None, files=files)


def _read_original_ids(mapping: Mapping[str, Any], path: Path, key: str) -> dict[str, str]:
    """Return number -> original id, and check that no two numbers have the same id."""
    numbers: dict[str, str] = {}
    for number, token in mapping.items():
        if type(token) not in (int, str):
            raise DataError(f"{path}: {key} of {number!r} is {token!r}, not an id; fix the file")
        if str(token) in numbers:
            raise DataError(
                f"{path}: {key} gives {token!r} to both {numbers[str(token)]!r} and {number!r}; keep one of them"
            )
        numbers[str(token)] = number
    return {number: token for token, number in numbers.items()}


def read_lattice(source: Path, request: Request) -> AtomicData:
    """Read kind `lattice`; the row of an item's features is its id. The order in each list is the order in time."""
    folder = find_parts(source)
    inter, warnings = read_parts(folder)
    texts, text_types = read_item_text(source)
    return assemble(
        source,
        inter,
        {},
        texts,
        text_types,
        time_known=False,
        rows=number_feature_rows,
        files=list_parts(folder),
        warnings=warnings,
    )


def list_parts(folder: Path) -> list[Path]:
    """List the files of the parts train, valid and test in a folder."""
    return [folder / file for file in LATTICE_PARTS.values()]


def find_parts(source: Path) -> Path:
    """Find the folder of train.json: the source, its folder 5-core, or else its only folder `<k>-core` with that file.

    Returns:
        The folder; the folder 5-core, which then lacks that file, if there is none.

    Raises:
        DataError: there are several such folders, and none of them is 5-core.
    """
    train = LATTICE_PARTS["train"]
    usual = source / LATTICE_FOLDER
    for folder in (source, usual):
        if (folder / train).is_file():
            return folder
    others = sorted(path.parent for path in source.glob(f"*/{train}") if _CORE.fullmatch(path.parent.name))
    if len(others) > 1:
        raise DataError(
            f"{source} holds {train} in {', '.join(path.name for path in others)}; name one of these folders with "
            "--source, and put the feature files into it"
        )
    return others[0] if others else usual


def read_parts(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read the interactions of train.json, val.json and test.json, `{user: [item, ...]}`.

    Returns:
        [E] interactions with columns user_id, item_id, split and timestamp, which numbers each user's interactions
        through the three parts; and warnings.

    Raises:
        DataError: a file is missing or of another format.
    """
    frames, warnings = [], []
    for part, file in LATTICE_PARTS.items():
        path = folder / file
        content = _read_json(path)
        users, items = [], []
        for user, listed in content.items():
            if not isinstance(listed, list) or not all(type(item) in (int, str) for item in listed):
                raise DataError(f"{path}: user {user!r} must have a list of item ids")
            users += [str(user)] * len(listed)
            items += [str(item) for item in listed]
        if empty := sum(not listed for listed in content.values()):
            warnings.append(f"{file}: {empty} users have an empty list")
        frames.append(pd.DataFrame({"user_id": users, "item_id": items, "split": part}, dtype="str"))
    inter, padding_warnings = strip_ids(pd.concat(frames, ignore_index=True), "the lists of items")
    warnings += padding_warnings
    inter["timestamp"] = number_rows(inter)
    return inter, warnings


def read_mmrec(source: Path, request: Request) -> AtomicData:
    """Read kind `mmrec`; the split is in `x_label`. Mapping files, if they exist, restore the original ids."""
    names = (request.name, *request.other_names, request.name.lower())  # MMRec's own names are in small letters
    path = next((path for name in names if (path := source / f"{name}.inter").is_file()), source / f"{names[0]}.inter")
    table = read_table(path, typed=False)
    table.require(("userID", "itemID", "x_label"), "it needs the header userID, itemID, x_label")
    labels = table.frame["x_label"]
    bad = np.flatnonzero(~labels.isin(["0", "1", "2"]).to_numpy(dtype=bool))
    if len(bad):
        row = int(bad[0])
        raise DataError(f"{table.line(row)}: x_label is {labels.iloc[row]!r}, not 0 (train), 1 (valid) or 2 (test)")
    parts = labels.map({str(code): part for code, part in enumerate(PARTS)})
    columns = pd.DataFrame({"user_id": table.frame["userID"], "item_id": table.frame["itemID"], "split": parts})
    inter, time_known, warnings = add_times(table, columns, ("userID", "itemID", "x_label"))
    files, numbers = [table.path], {}
    for column, field, file in zip(("user_id", "item_id"), ("userID", "itemID"), MMREC_MAPS, strict=True):
        if (path := source / file).is_file():
            tokens = read_id_map(read_table(path, typed=False), field)
            if column == "item_id":
                numbers = {token: item for item, token in tokens.items()}
            inter[column] = map_ids(inter[column], tokens, path, field)
            files.append(path)

    def find_rows(path: Path, items: Sequence[str]) -> Mapping[str, int]:
        row_of = number_feature_rows(path, [numbers.get(item, item) for item in items])
        return {item: row_of[numbers.get(item, item)] for item in items}

    texts, text_types = read_item_text(source)
    return assemble(
        source, inter, {}, texts, text_types, time_known=time_known, rows=find_rows, files=files, warnings=warnings
    )


def read_id_map(table: Table, field: str) -> dict[str, str]:
    """Return MMRec's number -> original id, from a table with the column `field` and one other column.

    Raises:
        DataError: the table has other columns or commas between them, or an id or a number occurs twice.
    """
    if len(table.frame.columns) == 1 and "," in (header := table.frame.columns[0]):
        raise DataError(
            f"{table.path}:1: the header {shorten(header)!r} has commas; the file must be tab-separated despite its "
            "name, so save it with tabs"
        )
    table.require((field,), f"it needs two columns, the original id and {field}")
    others = [column for column in table.frame.columns if column != field]
    if len(others) != 1:
        raise DataError(f"{table.path}:1: needs two columns, the original id and {field}; has {len(others) + 1}")
    table = replace(table, frame=strip_ids(table.frame, table.path.name, (field, others[0]))[0])
    for column in (field, others[0]):
        repeated = np.flatnonzero(table.frame[column].duplicated().to_numpy())
        if len(repeated):
            row = int(repeated[0])
            raise DataError(f"{table.line(row)}: {column} {table.frame[column].iloc[row]!r} occurs before; keep one")
    return dict(zip(table.frame[field], table.frame[others[0]], strict=True))


def map_ids(column: pd.Series[str], tokens: Mapping[str, str], path: Path, what: str) -> pd.Series[str]:
    """Return a column of numbers as original ids."""
    mapped = column.map(dict(tokens))
    if mapped.isna().any():
        raise DataError(f"{path}: no {what} for {column[mapped.isna()].iloc[0]!r}; complete the file or leave it out")
    return mapped.astype("str")


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: the file is missing, is not JSON or holds no object, or an object has a key twice, of which Python
            would keep the last value only.
    """
    text = read_text(path)

    def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            repeated = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise DataError(f"{path}: the key {shorten(repr(repeated))} occurs twice; join its values or keep one")
        return built

    try:
        content = json.loads(text, object_pairs_hook=build_object)
        if "\\ud" in text.lower():  # the escape may be half of a surrogate pair
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON ({error}); write the file again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold one JSON object")
    return content
