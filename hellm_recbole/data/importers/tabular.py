"""Importer of CSV, TSV and Parquet tables with named columns."""

from __future__ import annotations

import csv
import lzma
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from hellm_recbole.data.atomic import PARTS, AtomicData
from hellm_recbole.data.importers.assemble import assemble, item_text, number_rows
from hellm_recbole.data.importers.ids import drop_index, strip_ids
from hellm_recbole.data.importers.parquet import read_parquet
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.text import clean_text
from hellm_recbole.data.importers.untimed import describe_file_order
from hellm_recbole.data.tsv import refuse_endless_lines
from hellm_recbole.errors import DataError

ENDINGS = ("parquet", "csv", "csv.gz", "tsv", "tsv.gz")  # in the order in which they are looked for
FIELDS = {"user": "user_id", "item": "item_id", "time": "timestamp", "split": "split"}  # field -> its usual column
_OPTIONAL = ("time", "split")
_ITEMS = "_items"  # after the name of the table: the items' texts
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}  # after the point of a second, by pandas' unit of dates
_COMPRESSED = {".gz", ".bz2", ".xz", ".zst", ".zip"}  # of a table that --source names; pandas unpacks it


def read_tables(source: Path, request: Request) -> AtomicData:
    """Kind `table`: `NAME.csv` and the like, `NAME_items.csv` with texts beside it.

    An id is the text that stands in the file, without blanks around it (see `parquet.py` for typed columns). Times are
    numbers, or dates in ISO 8601 (UTC where they name no zone), which become seconds since 1970. A table without times
    is taken to be in time order, which a warning says.

    Raises:
        DataError: a column is missing, a field is empty or no time, a part is unknown, or an item has two rows.
    """
    for field in request.columns:
        if field not in FIELDS:
            raise DataError(f"--columns: unknown field {field!r}; there are {', '.join(FIELDS)}")
    path = _find(source, request.name) if request.table is None else source / request.table
    if path is None:
        raise DataError(
            f"{source} holds no {request.name}.{', .'.join(ENDINGS)}; name the dataset like the file, or the file with "
            "--source"
        )
    named = {field: request.columns.get(field, usual) for field, usual in FIELDS.items()}
    frame = _read(path, [named["user"], named["item"]], list(named.values()))
    columns = {}
    for field, usual in FIELDS.items():
        name = named[field]
        if name in frame:
            columns[usual] = _filled(frame[name], path, name)
        elif field not in _OPTIONAL or field in request.columns:
            raise DataError(
                f"{path}: no column {name!r} among {', '.join(frame.columns)}; name it with --columns {field}=COLUMN"
            )
    inter, warnings = strip_ids(pd.DataFrame(columns), path.name)
    time_known = "timestamp" in inter
    if time_known:
        inter["timestamp"] = _seconds(inter["timestamp"], path)
    else:
        advice = "name the column of times with --columns time=COLUMN"
        said = describe_file_order(path, frame, list(named.values()), given_split="split" in inter, advice=advice)
        warnings.insert(0, said)
        inter["timestamp"] = number_rows(inter)
    if "split" in inter and not (known := inter["split"].isin(PARTS)).all():
        raise DataError(f"{path}: split is {inter['split'][~known].iloc[0]!r}, not one of {', '.join(PARTS)}")
    files = [path]
    items, types = item_text(source)
    if (described := _find_items(path)) is not None:
        items, types, said_of_items = _item_table(described, named["item"])
        files.append(described)
        warnings += said_of_items
    return assemble(source, inter, {}, items, types, time_known=time_known, rows=None, files=files, warnings=warnings)


def _find(source: Path, name: str) -> Path | None:
    return next((path for ending in ENDINGS if (path := source / f"{name}.{ending}").is_file()), None)


def _find_items(path: Path) -> Path | None:
    """The table of items beside a table of interactions, with any ending, first of all a usual one."""
    name = path.name.removesuffix(path.suffix)
    if path.suffix.lower() in _COMPRESSED:
        name = name.removesuffix(Path(name).suffix)
    same = path.with_name(f"{name}{_ITEMS}{path.name.removeprefix(name)}")
    return _find(path.parent, f"{name}{_ITEMS}") or (same if same.is_file() else None)


def _read(path: Path, ids: Collection[str], used: Collection[str] | None = None) -> pd.DataFrame:
    """A table with at least one row, every field as text, a missing one as "", without the index of its rows.

    Args:
        path: the file.
        ids: columns of ids.
        used: columns that are read; None: all.

    Raises:
        DataError: it cannot be read, names a column twice, or has no row.
    """
    try:
        frame = read_parquet(path, ids, used) if path.suffix == ".parquet" else _read_delimited(path)
    except (OSError, EOFError, ValueError, NotImplementedError, csv.Error, zlib.error, lzma.LZMAError) as error:
        reason = " ".join(str(error).split())  # pandas' and pyarrow's faults are ValueErrors
        raise DataError(f"{path} cannot be read as a table: {reason}; mend it or save it again") from error
    if repeated := frame.columns[frame.columns.duplicated()].tolist():
        raise DataError(f"{path}: column {repeated[0]!r} occurs twice; keep one of them")
    if frame.empty:
        raise DataError(f"{path}: no row after the header; give it at least one")
    return drop_index(frame, [*ids, *(used or ())])


def _read_delimited(path: Path) -> pd.DataFrame:
    """Fields of CSV may be quoted, those of TSV are as they are."""
    if path.suffix.lower() not in _COMPRESSED:
        refuse_endless_lines(path)
    tabs = ".tsv" in path.suffixes
    rows = pd.read_csv(
        path,
        sep="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        header=None,  # pandas would rename a column that occurs twice, and shift rows with a field too many
        dtype="str",
        na_filter=False,
        encoding="utf-8-sig",
    ).fillna("")
    return rows.iloc[1:].set_axis(rows.iloc[0], axis=1).reset_index(drop=True)


def _filled(column: pd.Series[str], path: Path, name: str) -> pd.Series[str]:
    empty = np.flatnonzero((column == "").to_numpy(dtype=bool))
    if len(empty):
        raise DataError(f"{path}: row {int(empty[0]) + 1}: {name} is empty; give every row a value")
    return column


def _seconds(times: pd.Series[str], path: Path) -> pd.Series[str]:
    """Times as numbers in text, dates converted."""
    finite = np.isfinite(pd.to_numeric(times, errors="coerce").to_numpy(np.float64))
    if finite.all():
        return times
    dates = pd.to_datetime(times, format="ISO8601", utc=True, errors="coerce")
    bad = np.flatnonzero(~finite if finite[0] else dates.isna().to_numpy())
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{path}: row {row + 1}: time {times.iloc[row]!r} is neither a finite number nor a date like 2014-01-20, "
            "or not what row 1 has; mend the column"
        )
    digits = _DIGITS[str(dates.dt.unit)]
    return pd.Series([_point(ticks, digits) for ticks in dates.astype("int64").tolist()], times.index, dtype="str")


def _point(ticks: int, digits: int) -> str:
    """A whole number over 10**digits, exactly, as text.

    >>> _point(-1500, 3), _point(1700000000000000001, 9), _point(20, 0)
    ('-1.5', '1700000000.000000001', '20')
    """
    whole, rest = divmod(abs(ticks), 10**digits)
    fraction = f".{rest:0{digits}d}".rstrip("0") if rest else ""
    return f"{'-' * (ticks < 0)}{whole}{fraction}"


def _item_table(path: Path, name: str) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Items with their texts, every other column a text; the types of the columns; and what there is to warn of.

    Args:
        path: the file.
        name: column of the items' ids.
    """
    item = FIELDS["item"]
    frame = _read(path, [name])
    if name not in frame:
        raise DataError(f"{path}: no column {name!r} among {', '.join(frame.columns)}; give it the items' ids")
    if name != item and item in frame:
        frame = frame.drop(columns=item)  # another column is the items' ids
    frame, warnings = strip_ids(frame.rename(columns={name: item}), path.name)
    known = (frame[item] != "").to_numpy(dtype=bool)
    if without := int((~known).sum()):
        warnings.append(f"{path.name}: {without:,} row{'s' * (without > 1)} without an item id left out")
    repeated = np.flatnonzero(frame[item].duplicated().to_numpy() & known)
    if len(repeated):
        row = int(repeated[0])
        raise DataError(f"{path}: row {row + 1}: item {frame[item].iloc[row]!r} occurs before; keep one of its rows")
    texts = {column: frame[column].map(clean_text) for column in frame.columns if column != item}
    types = {column: "token" if column == item else "token_seq" for column in frame.columns}
    return frame.assign(**texts)[known], types, warnings
