"""Files of histories, users and candidates that are read, and of lists that are written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.system.files import atomic_write, ensure_folder

_USER, _ITEM, _TIME = "user_id", "item_id", "timestamp"
_READERS: Mapping[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False),
    ".tsv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False, sep="\t"),
    ".parquet": pd.read_parquet,
}
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

            A history without a name has the number of its line.

    Raises:
        DataError: the file cannot be read, has no history, or a column or a key is missing.
    """
    histories: dict[str, list[str]] = {}
    if path.suffix in _READERS:
        frame = _read_table(path, (_USER, _ITEM))
        if _TIME in frame:
            times = pd.to_numeric(frame[_TIME], errors="coerce")
            frame = frame.assign(**{_TIME: times if times.notna().all() else frame[_TIME]})
            frame = frame.sort_values(_TIME, kind="stable")
        for user, column in frame.groupby(_USER, sort=False)[_ITEM]:
            histories[str(user)] = [str(item) for item in column]
    else:
        is_json = path.suffix == ".jsonl"
        for number, line in enumerate(_read_lines(path), start=1):
            name, items = _parse_history(path, number, line) if is_json else (None, line.split())
            histories[str(number) if name is None else name] = items
    if not histories:
        raise DataError(f"{path} has no history; give one in each line")
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
    if path.suffix in _READERS:
        return [str(value) for value in dict.fromkeys(_read_table(path, (column,))[column])]
    return list(dict.fromkeys(line.strip() for line in _read_lines(path)))


def _read_lines(path: Path) -> list[str]:
    """Read the lines of a text file that are not blank.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); name a text file or a table") from error


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a table that has some columns.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    try:
        frame = _READERS[path.suffix](path)
    except (OSError, ValueError) as error:  # errors of pandas and pyarrow are ValueErrors
        raise DataError(f"{path} cannot be read as a table ({' '.join(str(error).split())})") from error
    for column in columns:
        if column not in frame:
            raise DataError(f"{path} has no column {column!r} among {', '.join(map(str, frame))}; rename one")
    return frame


def check_output(path: Path | None) -> None:
    """Refuse a file of lists with an unknown ending, before anything is loaded.

    Raises:
        OutputError: its ending is unknown.
    """
    if path is not None and path.suffix not in _WRITERS:
        raise OutputError(f"--output {path}: the ending must be {', '.join(_WRITERS)}")


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
    ensure_folder(path.parent)
    with atomic_write(path, int(lists.memory_usage().sum())) as temporary:
        _WRITERS[path.suffix](lists, temporary)
