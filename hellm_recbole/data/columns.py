"""Columns of tables of interactions: text in Arrow's memory, ids as codes, and rows written in blocks.

A column of pandas' `str` holds its texts in one buffer of Arrow, a few bytes above their length. A column of ids is
categorical: a code for each row, and each id once. No function here makes a Python object for each row of a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any, cast

import numpy as np
import pandas as pd

from hellm_recbole.data.text_rows import iterate_blocks, join_rows
from hellm_recbole.system.freed_memory import return_freed_memory
from hellm_recbole.types import IdArray

_POWERS = 10 ** np.arange(1, 19, dtype=np.int64)


def make_text(chunks: Any) -> pd.Series[str]:
    """Make a column of text from an array of Arrow's strings without nulls, in one or several chunks."""
    return pd.Series(pd.array(chunks, dtype="str"))


def make_categories(chunks: Sequence[Any]) -> pd.Series[str]:
    """Make a categorical column from dictionary arrays of Arrow; categories are in the order of first occurrence.

    >>> import pyarrow as pa
    >>> column = make_categories([pa.array(texts).dictionary_encode() for texts in (["b", "a"], ["c", "a"])])
    >>> column.tolist(), column.cat.categories.tolist()
    (['b', 'a', 'c', 'a'], ['b', 'a', 'c'])
    """
    import pyarrow as pa

    unified = pa.chunked_array(chunks).unify_dictionaries()
    tokens = unified.chunk(0).dictionary
    codes = np.concatenate([np.asarray(chunk.indices) for chunk in unified.chunks])
    return make_codes(codes, make_text(tokens))


def make_codes(codes: Any, tokens: pd.Series[str] | Sequence[str]) -> pd.Series[str]:
    """Make a categorical column from [E] codes, which are places in `tokens`."""
    return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(cast(Any, tokens), dtype="str")))


def number_tokens(column: pd.Series[str]) -> tuple[IdArray, pd.Series[str]]:
    """Number the tokens of a column from 0 in the order of first occurrence.

    >>> number_tokens(pd.Series(["b", "a", "b"], dtype="str"))[0]
    array([0, 1, 0])

    Returns:
        [E] numbers; the tokens.
    """
    codes, tokens = pd.factorize(column)
    return codes.astype(np.int64, copy=False), pd.Series(np.asarray(tokens), dtype="str")


def read_integers(column: pd.Series[str]) -> IdArray | None:
    """Read a column whose fields are all whole numbers as `str(int)` writes them, of at most 18 digits.

    >>> read_integers(pd.Series(["12", "-3"], dtype="str")), read_integers(pd.Series(["12", "03"], dtype="str"))
    (array([12, -3]), None)

    Returns:
        [E] numbers; None if a field is another text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(column.dtype, pd.StringDtype):
        return None
    values = np.empty(len(column), dtype=np.int64)
    for block in iterate_blocks(len(column)):
        texts = pa.array(column.iloc[block].array)
        try:
            numbers = np.asarray(texts.cast(pa.int64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None
        lengths = np.searchsorted(_POWERS, np.abs(numbers), side="right") + 1 + (numbers < 0)
        if not np.array_equal(np.asarray(pc.binary_length(texts)), lengths) or np.any(lengths - (numbers < 0) > 18):
            return None
        values[block] = numbers
    return values


def format_integers(values: IdArray) -> pd.Series[str]:
    """Write whole numbers as text.

    >>> format_integers(np.array([12, -3])).tolist()
    ['12', '-3']
    """
    import pyarrow as pa

    blocks = [pa.array(values[block]).cast(pa.large_string()) for block in iterate_blocks(len(values))]
    return make_text(pa.chunked_array(blocks, type=pa.large_string()))


def map_tokens(column: pd.Series[str], values: Mapping[str, int], other: int = -1) -> IdArray:
    """Replace the few different fields of a column by numbers.

    >>> map_tokens(pd.Series(["b", "a", "c"], dtype="str"), {"a": 0, "b": 1})
    array([ 1,  0, -1])
    """
    codes, tokens = number_tokens(column)
    return np.array([values.get(str(token), other) for token in tokens], dtype=np.int64)[codes]


def convert_numbers(column: pd.Series[str]) -> Any:
    """Convert text to float64; a field that is no number becomes NaN."""
    integers = read_integers(column)
    if integers is not None:
        return integers.astype(np.float64)
    values = np.empty(len(column), dtype=np.float64)
    for block in iterate_blocks(len(column)):
        texts = column.iloc[block]
        values[block] = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def write_rows(stream: IO[bytes], columns: Sequence[pd.Series[str]]) -> None:
    r"""Write the rows of columns of text, with tabs between the fields and a line feed after each row.

    >>> import io
    >>> stream = io.BytesIO()
    >>> write_rows(stream, [pd.Series(["a", "b"], dtype="str"), pd.Series(["1", "2"], dtype="category")])
    >>> stream.getvalue()
    b'a\t1\nb\t2\n'
    """
    for block in iterate_blocks(len(columns[0])):
        stream.write(join_rows([_get_texts(column.iloc[block]) for column in columns]))


def _get_texts(column: pd.Series[str]) -> Any:
    """Return a column, which may be categorical, as an array of Arrow's large strings."""
    import pyarrow as pa

    if isinstance(column.dtype, pd.CategoricalDtype):
        tokens = pa.array(column.cat.categories.array, pa.large_string())
        return tokens.take(pa.array(column.cat.codes.to_numpy()))
    texts = pa.array(column.array, pa.large_string())
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts


def release_memory() -> None:
    """Return the memory of tables that are no longer used to the system, where the system can take it back."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    return_freed_memory()
