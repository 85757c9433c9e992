"""Importer of CSV, TSV and Parquet tables with named columns."""

from __future__ import annotations

import csv
import lzma
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hellm_recbole.data.atomic import PARTS, AtomicData
from hellm_recbole.data.importers.assemble import assemble, item_text, number_rows
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.text import clean
from hellm_recbole.data.importers.untimed import describe_file_order
from hellm_recbole.data.tsv import refuse_endless_lines
from hellm_recbole.errors import DataError

ENDINGS = ("parquet", "csv", "csv.gz", "tsv", "tsv.gz")  # in the order in which they are looked for
FIELDS = {"user": "user_id", "item": "item_id", "time": "timestamp", "split": "split"}  # field -> its usual column
_OPTIONAL = ("time", "split")
_ITEMS = "_items"  # after the name of the table: the items' texts
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}  # after the point of a second, by pandas' unit of dates
_EXACT = 2.0**53  # whole numbers below it are exact in double precision


def read_tables(source: Path, request: Request) -> AtomicData:
    """Kind `table`: `NAME.csv` and the like, `NAME_items.csv` with texts beside it.

    Times are numbers, or dates in ISO 8601 (UTC where they name no zone), which become seconds since 1970. A table
    without times is taken to be in time order, which a warning says.

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
    frame = _read(path)
    columns = {}
    for field, usual in FIELDS.items():
        name = request.columns.get(field, usual)
        if name in frame:
            columns[usual] = _filled(frame[name], path, name)
        elif field not in _OPTIONAL or field in request.columns:
            raise DataError(
                f"{path}: no column {name!r} among {', '.join(frame.columns)}; name it with --columns {field}=COLUMN"
            )
    inter = pd.DataFrame(columns)
    warnings = []
    time_known = "timestamp" in inter
    if time_known:
        inter["timestamp"] = _seconds(inter["timestamp"], path)
    else:
        used = [request.columns.get(field, usual) for field, usual in FIELDS.items()]
        advice = "name the column of times with --columns time=COLUMN"
        warnings.append(describe_file_order(path, frame, used, given_split="split" in inter, advice=advice))
        inter["timestamp"] = number_rows(inter)
    if "split" in inter and not (known := inter["split"].isin(PARTS)).all():
        raise DataError(f"{path}: split is {inter['split'][~known].iloc[0]!r}, not one of {', '.join(PARTS)}")
    files = [path]
    items, types = item_text(source)
    if (described := _find(source, f"{_without_ending(path)}{_ITEMS}")) is not None:
        items, types = _item_table(described, request.columns)
        files.append(described)
    return assemble(source, inter, {}, items, types, time_known=time_known, rows=None, files=files, warnings=warnings)


def _find(source: Path, name: str) -> Path | None:
    return next((path for ending in ENDINGS if (path := source / f"{name}.{ending}").is_file()), None)


def _without_ending(path: Path) -> str:
    return next((path.name.removesuffix(f".{ending}") for ending in ENDINGS if path.name.endswith(f".{ending}")), "")


def _read(path: Path) -> pd.DataFrame:
    """A table with at least one row, every field as text, a missing one as "".

    Raises:
        DataError: it cannot be read, names a column twice, or has no row.
    """
    try:
        frame = _read_parquet(path) if path.suffix == ".parquet" else _read_delimited(path)
    except (OSError, EOFError, ValueError, csv.Error, zlib.error, lzma.LZMAError) as error:
        reason = " ".join(str(error).split())  # pandas' and pyarrow's faults are ValueErrors
        raise DataError(f"{path} cannot be read as a table: {reason}; mend it or save it again") from error
    if repeated := frame.columns[frame.columns.duplicated()].tolist():
        raise DataError(f"{path}: column {repeated[0]!r} occurs twice; keep one of them")
    if frame.empty:
        raise DataError(f"{path}: no row after the header; give it at least one")
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    frame.columns = frame.columns.astype("str")
    for name in frame.select_dtypes("float"):
        values = frame[name].to_numpy(np.float64, na_value=np.nan)
        if np.all((np.abs(values) < _EXACT) & (values == np.rint(values))):  # ids with a float type read 7.0 otherwise
            frame[name] = values.astype(np.int64)
    for name in frame.select_dtypes(["datetime", "datetimetz"]):
        frame[name] = frame[name].map(lambda moment: moment.isoformat())
    return frame.astype("object").where(frame.notna(), "").astype("str")


def _read_delimited(path: Path) -> pd.DataFrame:
    """Fields of CSV may be quoted, those of TSV are as they are."""
    if path.suffix != ".gz":
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


def _item_table(path: Path, columns: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Items with their texts, every other column a text."""
    frame = _read(path)
    name = columns.get("item", FIELDS["item"])
    if name not in frame:
        raise DataError(f"{path}: no column {name!r} among {', '.join(frame.columns)}; give it the items' ids")
    if name != FIELDS["item"] and FIELDS["item"] in frame:
        frame = frame.drop(columns=FIELDS["item"])  # another column is the items' ids
    repeated = np.flatnonzero(frame[name].duplicated().to_numpy())
    if len(repeated):
        row = int(repeated[0])
        raise DataError(f"{path}: row {row + 1}: item {frame[name].iloc[row]!r} occurs before; keep one of its rows")
    frame = frame.rename(columns={name: FIELDS["item"]})
    texts = {column: frame[column].map(clean) for column in frame.columns if column != FIELDS["item"]}
    types = {column: "token" if column == FIELDS["item"] else "token_seq" for column in frame.columns}
    return frame.assign(**texts), types
