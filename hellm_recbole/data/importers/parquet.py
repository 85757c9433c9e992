"""Read Parquet tables as text, with each field as a reader of the file would write it.

Integers of any size and decimals keep all their digits. A column of floats becomes integers if all its numbers are
whole and small enough to be exact, because one missing value turns a column of integers into floats. The elements of a
list are joined by ", ". Columns that store the index of a pandas table are read like other columns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hellm_recbole.data.columns import make_categories, make_text
from hellm_recbole.data.text_rows import BLOCK_ROWS
from hellm_recbole.errors import DataError

SEPARATOR = ", "  # between elements of a list


def read_parquet(path: Path, ids: Collection[str], used: Collection[str] | None) -> pd.DataFrame:
    """Read all columns of a table as text; a missing field is "".

    Args:
        path: Parquet file.
        ids: columns of ids.
        used: columns that are read; other columns become empty if they cannot be text. None: all columns are read.

    Raises:
        DataError: a used column holds dicts or bytes, or a column of ids holds lists or inexact floats.
        ValueError, OSError, NotImplementedError: the file cannot be read.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return _convert_table(file.read(), path, ids, used)


def read_first_parquet_rows(path: Path, ids: Collection[str], used: Collection[str], n_rows: int) -> pd.DataFrame:
    """Read the first rows as text; unused columns become empty if they cannot be text. See `read_parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=n_rows), None)
        table = file.schema_arrow.empty_table() if batch is None else pa.Table.from_batches([batch])
    return _convert_table(table, path, ids, used)


def read_parquet_column(path: Path, name: str, ids: Collection[str]) -> pd.Series[str]:
    """Read one column as text, in blocks; a column of ids becomes categorical. See `read_parquet`."""
    import pyarrow as pa

    blocks = (_decode_column(block) for block in _iterate_column(path, name))
    if pa.types.is_floating(kind := _decode_column(next(_iterate_column(path, name))).type):
        whole = all(_are_whole(_decode_column(block)) for block in _iterate_column(path, name))
        texts = (_format_floats(block, path, name, is_id=name in ids, whole=whole) for block in blocks)
        chunks = (pa.array(fields, pa.large_string()) for fields in texts)
    elif pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        chunks = (block.cast(pa.large_string()).combine_chunks().fill_null("") for block in blocks)
    else:
        converted = (_convert_column(block, path, name, is_id=name in ids) for block in blocks)
        chunks = (pa.array(column.tolist(), pa.large_string()) for column in converted)
    if name not in ids:
        return make_text(pa.chunked_array(list(chunks)))
    return make_categories([chunk.dictionary_encode() for chunk in chunks])


def _iterate_column(path: Path, name: str) -> Iterator[Any]:
    """Yield the blocks of a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=[name], use_threads=False):
            yield pa.chunked_array([batch.column(batch.schema.get_field_index(name))])


def _convert_table(table: Any, path: Path, ids: Collection[str], used: Collection[str] | None) -> pd.DataFrame:
    """Convert all columns of a table to text."""
    columns: dict[int, pd.Series[str]] = {}
    for position, name in enumerate(table.column_names):
        column = _decode_column(table.column(position))
        if (kind := _name_refused_type(column.type, is_id=name in ids)) is None:
            columns[position] = _convert_column(column, path, name, is_id=name in ids)
        elif used is None or name in used:
            raise DataError(
                f"{path}: column {name!r} holds {kind}, not text or numbers; leave it out of the table, or write it as "
                "text"
            )
        else:
            columns[position] = pd.Series([""] * len(column), dtype="str")
    return pd.DataFrame(columns).set_axis(table.column_names, axis=1)


def _decode_column(column: Any) -> Any:
    """Return a column without dictionary encoding and without an extension type."""
    import pyarrow as pa

    while pa.types.is_dictionary(column.type) or isinstance(column.type, pa.BaseExtensionType):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        else:
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], type=column.type.storage_type)
    return column


def _name_refused_type(kind: Any, *, is_id: bool) -> str | None:
    """Return the name of a column type that cannot be text, such as "dicts"; None if it can."""
    import pyarrow as pa

    types = pa.types
    if types.is_struct(kind) or types.is_map(kind) or types.is_union(kind):
        return "dicts"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "bytes"
    if hasattr(types, "is_binary_view") and types.is_binary_view(kind):
        return "bytes"
    if _is_list(kind):
        return "lists" if is_id else _name_refused_type(kind.value_type, is_id=False)
    return None


def _is_list(kind: Any) -> bool:
    """Return whether a column type is one of the list types."""
    import pyarrow as pa

    tests = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, test)(kind) for test in tests if hasattr(pa.types, test))


def _convert_column(column: Any, path: Path, name: str, *, is_id: bool) -> pd.Series[str]:
    """Return a column as text."""
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        fields = _format_floats(column, path, name, is_id=is_id, whole=_are_whole(column))
    elif pa.types.is_timestamp(column.type):
        fields = ["" if pd.isna(moment) else moment.isoformat() for moment in column.to_pandas()]
    else:
        fields = [_format_field(value) for value in column.to_pylist()]
    return pd.Series(fields, dtype="str")


def _are_whole(column: Any) -> bool:
    """Return whether all numbers of a column of floats are whole, and small enough to be exact."""
    numbers = column.combine_chunks().to_numpy(zero_copy_only=False)
    numbers = numbers[~np.isnan(numbers)]
    return bool(np.all((np.abs(numbers) < _find_exact_limit(numbers.dtype)) & (numbers == np.rint(numbers))))


def _find_exact_limit(dtype: Any) -> float:
    """Return the number below which all integers are exact floats."""
    return float(2.0 ** (np.finfo(dtype).nmant + 1))


def _format_floats(column: Any, path: Path, name: str, *, is_id: bool, whole: bool) -> list[str]:
    """Format a column of floats; as integers, if all numbers of the whole column are `whole`."""
    values = column.combine_chunks().to_numpy(zero_copy_only=False)
    known = ~np.isnan(values)
    numbers, exact = values[known], _find_exact_limit(values.dtype)
    if whole:
        return [str(int(value)) if is_known else "" for value, is_known in zip(values, known, strict=True)]
    if is_id and np.any(np.abs(numbers) >= exact):
        raise DataError(
            f"{path}: column {name!r} holds ids as floats of {exact:.0f} and more, where different ids become one; "
            "save them as integers or as text"
        )
    return [str(value) if is_known else "" for value, is_known in zip(values, known, strict=True)]


def _format_field(value: object) -> str:
    """Format one field; the elements of a list are joined, without missing and empty ones.

    >>> _format_field(["a", None, ["b", 3]]), _format_field(Decimal("10.00")), _format_field(None)
    ('a, b, 3', '10.00', '')
    >>> _format_field(2**60 + 1)
    '1152921504606846977'
    """
    if value is None:
        return ""
    if isinstance(value, list):
        return SEPARATOR.join(filter(None, map(_format_field, value)))
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
