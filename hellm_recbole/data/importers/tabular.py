"""Importer of CSV, TSV and Parquet tables with named columns."""

from __future__ import annotations

import csv
import lzma
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.columns import convert_numbers
from hellm_recbole.data.dataset import PARTS
from hellm_recbole.data.importers.assemble import assemble, number_rows, read_item_text
from hellm_recbole.data.importers.delimited import list_pandas_options, read_delimited_columns, read_first_rows
from hellm_recbole.data.importers.ids import drop_index, strip_ids
from hellm_recbole.data.importers.memory import refuse_too_large
from hellm_recbole.data.importers.parquet import read_first_parquet_rows, read_parquet, read_parquet_column
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.text import clean_text
from hellm_recbole.data.importers.untimed import CHECKED_ROWS, describe_file_order
from hellm_recbole.data.tsv import refuse_endless_lines
from hellm_recbole.errors import DataError

ENDINGS = ("parquet", "csv", "csv.gz", "tsv", "tsv.gz")  # in the order of the search
# Field -> default name of its column.
FIELDS = {"user": "user_id", "item": "item_id", "time": "timestamp", "split": "split"}
_OPTIONAL = ("time", "split")
PICTURE = "image"  # field, and default name of the column, of a picture's file or address in the table of items
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_ITEMS = "_items"  # added to the name of the table: the table of the items' texts
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}  # decimal places of a second, by pandas' unit of dates
_COMPRESSED = {".gz", ".bz2", ".xz", ".zst", ".zip"}  # formats that pandas unpacks, for a table named by --source


def read_tables(source: Path, request: Request) -> AtomicData:
    """Read kind `table`: a table `NAME.csv` (or another format), and optionally `NAME_items.csv` with texts next to it.

    An id is the text in the file without blanks around it (see `parquet.py` for typed columns). Times are numbers, or
    dates in ISO 8601 (in UTC if they have no time zone), which become seconds since 1970. A table without times is read
    as if it were in time order, with a warning.

    Raises:
        DataError: a column is missing, a field is empty, a time or a split is not valid, or an item has two rows.
    """
    for field in request.columns:
        if field not in (*FIELDS, PICTURE):
            raise DataError(f"--columns: unknown field {field!r}; there are {', '.join((*FIELDS, PICTURE))}")
    path = _find_table(source, request.name) if request.table is None else source / request.table
    if path is None:
        raise DataError(
            f"{source} holds no {request.name}.{', .'.join(ENDINGS)}; give the dataset the name of its file, or "
            "name the file with --source"
        )
    column_names = {field: request.columns.get(field, default) for field, default in FIELDS.items()}
    refuse_too_large(path)
    ids, used = [column_names["user"], column_names["item"]], list(column_names.values())
    frame, first_rows = read_used_columns(path, ids, used)
    columns = {}
    for field, default in FIELDS.items():
        name = column_names[field]
        if name in frame:
            columns[default] = check_filled(frame[name], path, name)
        elif field not in _OPTIONAL or field in request.columns:
            raise DataError(
                f"{path}: no column {name!r} among {', '.join(first_rows.columns)}; name it with --columns "
                f"{field}=COLUMN"
            )
    inter, warnings = strip_ids(pd.DataFrame(columns), path.name)
    time_known = "timestamp" in inter
    if time_known:
        inter["timestamp"] = convert_times(inter["timestamp"], path)
    else:
        advice = "name the column of times with --columns time=COLUMN"
        order_warning = describe_file_order(path, first_rows, used, given_split="split" in inter, advice=advice)
        warnings.insert(0, order_warning)
        inter["timestamp"] = number_rows(inter)
    if "split" in inter and not (is_known := inter["split"].isin(PARTS)).all():
        raise DataError(f"{path}: split is {inter['split'][~is_known].iloc[0]!r}, not one of {', '.join(PARTS)}")
    files = [path]
    items, types = read_item_text(source)
    if (item_path := _find_item_table(path)) is not None:
        items, types, item_warnings = _read_items(item_path, column_names["item"])
        files.append(item_path)
        warnings += item_warnings
    data = assemble(source, inter, {}, items, types, time_known=time_known, rows=None, files=files, warnings=warnings)
    image_files, image_urls = _read_pictures(item_path or path, items, request.columns.get(PICTURE))
    return replace(data, image_files=image_files, image_urls=image_urls)


def _find_table(source: Path, name: str) -> Path | None:
    """Return the first existing table with this name and one of the known endings, or None."""
    return next((path for ending in ENDINGS if (path := source / f"{name}.{ending}").is_file()), None)


def _find_item_table(path: Path) -> Path | None:
    """Return the table of items next to a table of interactions; known endings come first, then the same ending."""
    name = path.name.removesuffix(path.suffix)
    if path.suffix.lower() in _COMPRESSED:
        name = name.removesuffix(Path(name).suffix)
    same_ending = path.with_name(f"{name}{_ITEMS}{path.name.removeprefix(name)}")
    return _find_table(path.parent, f"{name}{_ITEMS}") or (same_ending if same_ending.is_file() else None)


def read_used_columns(path: Path, ids: Collection[str], used: Collection[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the used columns of a table, and the first rows of all its columns; see `read_table`.

    Memory holds the used columns, of ids a code for each row, and a block of the file.

    Returns:
        The used columns that the table has, those of ids categorical; the first rows.
    """
    with _explain_faults(path):
        if path.suffix.lower() == ".parquet":
            first = _check_table(path, read_first_parquet_rows(path, ids, used, CHECKED_ROWS))
            columns = {name: read_parquet_column(path, name, ids) for name in used if name in first}
        else:
            first = _check_table(path, read_first_rows(path, CHECKED_ROWS))
            if path.suffix.lower() not in _COMPRESSED:
                refuse_endless_lines(path)
            places = {place: name for place, name in enumerate(first.columns) if name in used}
            read = read_delimited_columns(path, {place: name in ids for place, name in places.items()}, first.shape[1])
            columns = {name: read[place] for place, name in places.items()}
    first = drop_index(first, [*ids, *used])
    return pd.DataFrame(columns), first


def read_table(path: Path, ids: Collection[str], used: Collection[str] | None = None) -> pd.DataFrame:
    """Read all columns of a table with at least one row as text, without index columns; a missing field is "".

    Args:
        path: file of the table.
        ids: columns of ids.
        used: columns that are read; other columns of a Parquet file become empty if they cannot be text. None: all.

    Raises:
        DataError: the table cannot be read, has two columns of the same name, or has no row.
    """
    with _explain_faults(path):
        frame = read_parquet(path, ids, used) if path.suffix.lower() == ".parquet" else _read_delimited(path)
    return drop_index(_check_table(path, frame), [*ids, *(used or ())])


@contextmanager
def _explain_faults(path: Path) -> Iterator[None]:
    """Turn errors of the readers into a sentence that names the file."""
    try:
        yield
    except (OSError, EOFError, ValueError, NotImplementedError, csv.Error, zlib.error, lzma.LZMAError) as error:
        reason = " ".join(str(error).split())  # errors of pandas and pyarrow are ValueErrors
        raise DataError(f"{path} cannot be read as a table: {reason}; fix it or save it again") from error


def _check_table(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table, if no column occurs twice and it has a row."""
    if repeated := frame.columns[frame.columns.duplicated()].tolist():
        raise DataError(f"{path}: column {repeated[0]!r} occurs twice; keep one of them")
    if frame.empty:
        raise DataError(f"{path}: no row after the header; give it at least one")
    return frame


def _read_delimited(path: Path) -> pd.DataFrame:
    """Read a CSV file, whose fields may be quoted, or a TSV file, in which quotes are ordinary characters."""
    if path.suffix.lower() not in _COMPRESSED:
        refuse_endless_lines(path)
    rows = pd.read_csv(path, **list_pandas_options(path)).fillna("")
    return cast(pd.DataFrame, rows.iloc[1:].set_axis(rows.iloc[0], axis=1).reset_index(drop=True))


def check_filled(column: pd.Series[str], path: Path, name: str) -> pd.Series[str]:
    """Return a column, if none of its fields is empty."""
    empty = np.flatnonzero((column == "").to_numpy(dtype=bool))
    if len(empty):
        raise DataError(f"{path}: row {int(empty[0]) + 1}: {name} is empty; give every row a value")
    return column


def convert_times(times: pd.Series[str], path: Path) -> pd.Series[str]:
    """Return times as numbers in text; dates become seconds since 1970."""
    finite = np.isfinite(convert_numbers(times))
    if finite.all():
        return times
    dates = pd.to_datetime(times, format="ISO8601", utc=True, errors="coerce")
    bad = np.flatnonzero(~finite if finite[0] else dates.isna().to_numpy())
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{path}: row {row + 1}: time {times.iloc[row]!r} is neither a finite number nor a date like 2014-01-20, "
            "or is not of the same kind as row 1; fix the column"
        )
    digits = _DIGITS[str(dates.dt.unit)]
    return pd.Series(
        [_format_decimal(ticks, digits) for ticks in dates.astype("int64").tolist()], times.index, dtype="str"
    )


def _format_decimal(ticks: int, digits: int) -> str:
    """Format an integer divided by 10**digits as exact decimal text.

    >>> _format_decimal(-1500, 3), _format_decimal(1700000000000000001, 9), _format_decimal(20, 0)
    ('-1.5', '1700000000.000000001', '20')
    """
    whole, rest = divmod(abs(ticks), 10**digits)
    fraction = f".{rest:0{digits}d}".rstrip("0") if rest else ""
    return f"{'-' * (ticks < 0)}{whole}{fraction}"


def _read_items(path: Path, name: str) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Read the table of items; every column other than the ids is a text.

    Args:
        path: file of the table.
        name: column of the items' ids.

    Returns:
        The table, the atomic type of each column, and warnings.
    """
    item = FIELDS["item"]
    frame = read_table(path, [name])
    if name not in frame:
        raise DataError(
            f"{path}: no column {name!r} among {', '.join(frame.columns)}; this column must hold the items' ids"
        )
    if name != item and item in frame:
        frame = frame.drop(columns=item)  # `name` holds the items' ids, not this column
    frame, warnings = strip_ids(frame.rename(columns={name: item}), path.name)
    known = (frame[item] != "").to_numpy(dtype=bool)
    if n_without_id := int((~known).sum()):
        warnings.append(f"{path.name}: {n_without_id:,} row{'s' * (n_without_id > 1)} without an item id left out")
    repeated = np.flatnonzero(frame[item].duplicated().to_numpy() & known)
    if len(repeated):
        row = int(repeated[0])
        raise DataError(f"{path}: row {row + 1}: item {frame[item].iloc[row]!r} occurs before; keep one of its rows")
    texts = {column: frame[column].map(clean_text) for column in frame.columns if column != item}
    types = {column: "token" if column == item else "token_seq" for column in frame.columns}
    return frame.assign(**texts)[known], types, warnings


def _read_pictures(
    path: Path, items: pd.DataFrame | None, column: str | None
) -> tuple[dict[str, Path], Mapping[str, tuple[str, ...]]]:
    """Read the column of pictures of the table of items.

    Args:
        path: file of the table; names of pictures are relative to its folder.
        items: the table; None if there is none.
        column: name of the column that the user has given; None takes the default name if the table has it.

    Returns:
        Item -> file of its picture, and item -> address of its picture. The files need not exist.

    Raises:
        DataError: the column does not exist, or a name leads out of the folder.
    """
    name = PICTURE if column is None else column
    if items is None or name not in items:
        if column is None:
            return {}, {}
        has = "there is no table of items" if items is None else f"it has {', '.join(items.columns)}"
        raise DataError(f"{path}: no column {name!r} of pictures ({has}); correct --columns {PICTURE}={name}")
    files: dict[str, Path] = {}
    urls: dict[str, tuple[str, ...]] = {}
    for item, value in zip(items[FIELDS["item"]], items[name], strict=True):
        if _ADDRESS.match(value):
            urls[item] = (value,)
        elif value:
            if Path(value).is_absolute() or ".." in Path(value).parts:
                raise DataError(
                    f"{path}: picture {value!r} of item {item!r} is not inside {path.parent}; write file names "
                    "relative to that folder"
                )
            files[item] = path.parent / value
    return files, urls
