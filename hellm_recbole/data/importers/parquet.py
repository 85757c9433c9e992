"""Parquet tables as text: each field as a reader of the file would write it.

Integers are written as they are, however large, and decimals with all their digits. A column of floats whose numbers
are all whole and small enough to be exact is taken for integers, for a single missing value makes floats of them.
Lists are joined with ", ". Columns stored as the index of a pandas table are columns like others.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hellm_recbole.errors import DataError

SEPARATOR = ", "  # between the elements of a list


def read_parquet(path: Path, ids: Collection[str], used: Collection[str] | None) -> pd.DataFrame:
    """All columns of a table as text, a missing field as "".

    Args:
        path: the file.
        ids: columns of ids.
        used: columns that are read; others may hold what cannot be text, and are then empty. None: all are.

    Raises:
        DataError: a column that is used holds dicts or bytes, or ids are lists or floats that are not exact.
        ValueError, OSError, NotImplementedError: the file cannot be read.
    """
    import pyarrow.parquet as pq

    columns: dict[int, pd.Series[str]] = {}
    with pq.ParquetFile(path) as file:
        table = file.read()
    for place, name in enumerate(table.column_names):
        column = _plain(table.column(place))
        if (kind := _refused(column.type, is_id=name in ids)) is None:
            columns[place] = _as_text(column, path, name, is_id=name in ids)
        elif used is None or name in used:
            raise DataError(
                f"{path}: column {name!r} holds {kind}, not text or numbers; leave it out of the table or write it as "
                "text"
            )
        else:
            columns[place] = pd.Series([""] * len(column), dtype="str")
    return pd.DataFrame(columns).set_axis(table.column_names, axis=1)


def _plain(column: Any) -> Any:
    """A column without dictionary encoding and without an extension type."""
    import pyarrow as pa

    while pa.types.is_dictionary(column.type) or isinstance(column.type, pa.BaseExtensionType):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        else:
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], type=column.type.storage_type)
    return column


def _refused(kind: Any, *, is_id: bool) -> str | None:
    """What a column of a type holds, in words, if that is no text; else None."""
    import pyarrow as pa

    types = pa.types
    if types.is_struct(kind) or types.is_map(kind) or types.is_union(kind):
        return "dicts"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "bytes"
    if hasattr(types, "is_binary_view") and types.is_binary_view(kind):
        return "bytes"
    if _is_list(kind):
        return "lists" if is_id else _refused(kind.value_type, is_id=False)
    return None


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    tests = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, test)(kind) for test in tests if hasattr(pa.types, test))


def _as_text(column: Any, path: Path, name: str, *, is_id: bool) -> pd.Series[str]:
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        fields = _floats(column, path, name, is_id=is_id)
    elif pa.types.is_timestamp(column.type):
        fields = ["" if pd.isna(moment) else moment.isoformat() for moment in column.to_pandas()]
    else:
        fields = [_text(value) for value in column.to_pylist()]
    return pd.Series(fields, dtype="str")


def _floats(column: Any, path: Path, name: str, *, is_id: bool) -> list[str]:
    values = column.combine_chunks().to_numpy(zero_copy_only=False)
    there = ~np.isnan(values)
    whole = values[there]
    exact = 2.0 ** (np.finfo(values.dtype).nmant + 1)  # whole numbers below it are told apart
    if np.all((np.abs(whole) < exact) & (whole == np.rint(whole))):
        return [str(int(value)) if known else "" for value, known in zip(values, there, strict=True)]
    if is_id and np.any(np.abs(whole) >= exact):
        raise DataError(
            f"{path}: column {name!r} holds ids as floats of {exact:.0f} and more, where different ids become one; "
            "save them as integers or as text"
        )
    return [str(value) if known else "" for value, known in zip(values, there, strict=True)]


def _text(value: object) -> str:
    """One field: a list's elements in turn, missing and empty ones left out.

    >>> _text(["a", None, ["b", 3]]), _text(Decimal("10.00")), _text(None), _text(2**60 + 1)
    ('a, b, 3', '10.00', '', '1152921504606846977')
    """
    if value is None:
        return ""
    if isinstance(value, list):
        return SEPARATOR.join(filter(None, map(_text, value)))
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
