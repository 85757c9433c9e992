"""Blocks of rows, and rows of text with tabs between their fields, made by Arrow without a Python object a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from hellm_recbole.types import TokenArray

BLOCK_ROWS = 1 << 18  # rows that are converted or written at a time


def iterate_blocks(n_rows: int, block_rows: int = BLOCK_ROWS) -> Iterator[slice]:
    """Yield slices that cover all rows in order.

    >>> list(iterate_blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, n_rows, block_rows):
        yield slice(start, min(start + block_rows, n_rows))


def join_rows(columns: Sequence[Any]) -> bytes:
    """Join arrays of Arrow's large strings to lines of fields with tabs between them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tab, end = pa.scalar("\t", pa.large_string()), pa.scalar("", pa.large_string())
    lines = pc.binary_join_element_wise(*columns, tab)
    lines = pc.binary_join_element_wise(lines, end, pa.scalar("\n", pa.large_string()))
    offsets = np.frombuffer(lines.buffers()[1], dtype=np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(lines.buffers()[2])[int(offsets[0]) : int(offsets[-1])].tobytes()


def take_tokens(tokens: Any, codes: Any) -> Any:
    """Return the tokens at some places of `tokens`, an array of Arrow's large strings."""
    import pyarrow as pa

    return tokens.take(pa.array(codes))


def wrap_tokens(tokens: TokenArray | Iterable[str]) -> Any:
    """Return tokens as an array of Arrow's large strings."""
    import pyarrow as pa

    return pa.array(tokens.tolist() if isinstance(tokens, np.ndarray) else list(tokens), pa.large_string())
