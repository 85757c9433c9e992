"""Files of histories, users and candidates that are read, and of lists that are written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hellm_recbole.data.importers.tabular import check_filled, convert_times, read_table
from hellm_recbole.data.times import order_times
from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.system.files import atomic_write, ensure_folder

_USER, _ITEM, _TIME = "user_id", "item_id", "timestamp"
_TABLES = (".csv", ".tsv", ".parquet")
_WRITERS: Mapping[str, Callable[[pd.DataFrame, Any], object]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, force_ascii=False),
}


def read_histories(path: Path) -> dict[str, list[str]]:
    """Read new histories: name -> items, oldest first.

    Args:
        path: one of

            - a table (`.csv`, `.tsv` or `.parquet`) with the columns `user_id` and `item_id`, and perhaps `timestamp`,
              by which the rows of a user are sorted; equal times, and rows without times, keep their order;
            - `.jsonl` with a list of items in each line, or an object with `user_id` and `items`;
            - any other text file: the items of one history in each line, with tabs or spaces between them.

            A history without a name has the number of its line; blank lines are not counted. Times are numbers, or
            dates in ISO 8601.

    Raises:
        DataError: the file cannot be read or has no history; a column, a key or a field is missing; a time is neither
            kind, or not of the kind of row 1; or two lines have histories of one user.
    """
    ending = path.suffix.lower()
    histories = (
        _read_history_table(path) if ending in _TABLES else _read_history_lines(path, is_json=ending == ".jsonl")
    )
    if not histories:
        raise DataError(f"{path} has no history; give one in each line")
    return histories


def _read_history_table(path: Path) -> dict[str, list[str]]:
    """Read the histories of a table: user -> items, sorted by their times if it has any.

    Raises:
        DataError: the table cannot be read, lacks a column, or a field is empty or not a time.
    """
    frame = _read_table(path, (_USER, _ITEM))
    if _TIME in frame:
        order, _ = order_times(convert_times(check_filled(frame[_TIME], path, _TIME), path))
        frame = frame.iloc[np.argsort(order, kind="stable")]
    return {str(user): [*column] for user, column in frame.groupby(_USER, sort=False)[_ITEM]}


def _read_history_lines(path: Path, *, is_json: bool) -> dict[str, list[str]]:
    """Read the histories of a file with one in each line.

    Raises:
        DataError: the file cannot be read, a line is wrong, or two histories have the same name.
    """
    histories: dict[str, list[str]] = {}
    for position, (number, line) in enumerate(_read_lines(path), start=1):
        name, items = _parse_history(path, number, line) if is_json else (None, line.split())
        name = str(position) if name is None else name
        if name in histories:
            raise DataError(f"{path}:{number}: user {name!r} has a history before; give each user one line")
        histories[name] = items
    return histories


def _parse_history(path: Path, number: int, line: str) -> tuple[str | None, list[str]]:
    """Read a line of JSON: the name of the history, None if it has none, and its items.

    Raises:
        DataError: the line is neither a list nor an object with items.
    """
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}:{number} is not JSON ({error}); write a list of items in each line") from error
    name, items = (value.get(_USER), value.get("items")) if isinstance(value, dict) else (None, value)
    if not isinstance(items, list):
        raise DataError(f'{path}:{number} has no list of items; write ["a", "b"] or {{"user_id": "x", "items": ["a"]}}')
    return None if name is None else str(name), [str(item) for item in items]


def read_names(path: Path, column: str) -> list[str]:
    """Read users or items: a column of a table, or the lines of any other text file.

    Args:
        path: file to read.
        column: `user_id` or `item_id`.

    Raises:
        DataError: the file cannot be read or has no such column.
    """
    if path.suffix.lower() in _TABLES:
        return list(dict.fromkeys(_read_table(path, (column,))[column]))
    return list(dict.fromkeys(line.strip() for _, line in _read_lines(path)))


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Read the lines of a text file that are not blank, each with its number.

    Raises:
        DataError: the file cannot be read.
    """
    _refuse_other_than_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); name a text file or a table") from error
    if "\0" in text:
        raise DataError(f"{path} is not a text file; name a text file, or a table ({', '.join(_TABLES)})")
    return [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a table that has some columns, none of them with an empty field, as text.

    Raises:
        DataError: it cannot be read, or lacks a column or a field.
    """
    _refuse_other_than_file(path)
    frame = read_table(path, columns, (*columns, _TIME))
    for column in columns:
        if column not in frame:
            raise DataError(f"{path} has no column {column!r} among {', '.join(map(str, frame))}; rename one")
        check_filled(frame[column].str.strip(), path, column)
    return frame


def _refuse_other_than_file(path: Path) -> None:
    """Refuse a file that does not exist, and a folder.

    Raises:
        DataError: there is no such file, or it is a folder.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "cannot be read: there is no such file"
        raise DataError(f"{path} {what}; name a text file, or a table ({', '.join(_TABLES)})")


def check_output(path: Path | None) -> None:
    """Refuse a file of lists that cannot be written, before anything is loaded, and make its folder.

    Raises:
        OutputError: its ending is unknown, it is a folder, or its folder cannot be written.
    """
    if path is None:
        return
    if path.suffix.lower() not in _WRITERS:
        raise OutputError(f"--output {path}: the ending must be {', '.join(_WRITERS)}")
    if path.is_dir():
        raise OutputError(f"--output {path} is a folder; name a file")
    ensure_folder(path.parent)


def write_lists(lists: pd.DataFrame, path: Path | None) -> None:
    """Write lists as CSV, Parquet or lines of JSON, by the ending of the file; None prints them as CSV.

    Args:
        lists: columns `user_id`, `rank`, `item_id` and `score`.
        path: file to write.

    Raises:
        OutputError: the ending is unknown, or the file cannot be written.
    """
    check_output(path)
    if path is None:
        lists.to_csv(sys.stdout, index=False)
        return
    with atomic_write(path, int(lists.memory_usage().sum())) as temporary:
        _WRITERS[path.suffix.lower()](lists, temporary)
