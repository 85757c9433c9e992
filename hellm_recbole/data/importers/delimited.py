"""Read the used columns of CSV and TSV files in blocks, so that memory holds columns and never the file.

Arrow reads a file without oddities. A file with rows of different lengths, or with texts that Arrow and pandas read in
different ways, is read by pandas, which takes longer, needs no more memory, and names the line of an error.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, cast

import pandas as pd

from hellm_recbole.data.columns import make_categories, make_text
from hellm_recbole.data.text_rows import BLOCK_ROWS

BLOCK_BYTES = 1 << 23  # of a file that Arrow reads at a time
_ODD = re.compile(rb'[^,\n\r"]"[^,\n\r]|\x00|\r(?!\n|\Z)')  # see `_Checked`


def list_pandas_options(path: Path) -> dict[str, Any]:
    """List the options with which pandas reads a CSV file, or a TSV file, in which quotes are ordinary characters."""
    is_tsv = ".tsv" in map(str.lower, path.suffixes)
    return {
        "sep": "\t" if is_tsv else ",",
        "quoting": csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL,
        "header": None,  # with a header, pandas renames repeated columns and shifts rows with too many fields
        "dtype": "str",
        "na_filter": False,
        "encoding": "utf-8-sig",
    }


def read_first_rows(path: Path, n_rows: int) -> pd.DataFrame:
    """Read the first rows of all columns as text; the header names the columns."""
    rows = pd.read_csv(path, nrows=n_rows + 1, **list_pandas_options(path)).fillna("")
    return cast(pd.DataFrame, rows.iloc[1:].set_axis(rows.iloc[0], axis=1).reset_index(drop=True))


def read_delimited_columns(path: Path, positions: Mapping[int, bool], n_columns: int) -> dict[int, pd.Series[str]]:
    """Read some columns as text, without the header; a missing field is "".

    Args:
        path: CSV or TSV file, plain or compressed.
        positions: position of each column that is read -> whether it becomes categorical.
        n_columns: number of columns of the header.

    Raises:
        ValueError: a row has more fields than the header, or the file is no text; the error names the line.
        OSError, EOFError, zlib.error, lzma.LZMAError: the file cannot be read.
    """
    import pyarrow as pa

    if path.suffix.lower() in ("", ".csv", ".tsv", ".txt", ".gz"):
        try:
            with closing(_read_with_arrow(path, positions, n_columns)) as blocks:
                return _collect(blocks, positions)
        except (pa.ArrowInvalid, _Odd):
            pass
    with closing(_read_with_pandas(path, positions)) as blocks:
        return _collect(blocks, positions)


class _Odd(Exception):
    """Arrow would read a text of the file in another way than pandas."""


def _collect(blocks: Iterator[Sequence[Any]], positions: Mapping[int, bool]) -> dict[int, pd.Series[str]]:
    """Join the blocks of each column, and drop the header."""
    chunks: dict[int, list[Any]] = {position: [] for position in positions}
    for block in blocks:
        for own, array in zip(chunks.values(), block, strict=True):
            own.append(array)
    columns = {}
    for position, is_category in positions.items():
        own = chunks.pop(position)
        own[0] = own[0].slice(1)
        if is_category:
            own[0] = own[0].dictionary_decode().dictionary_encode()  # without the header among the ids
        columns[position] = make_categories(own) if is_category else make_text(_chunk(own))
    return columns


def _chunk(arrays: Sequence[Any]) -> Any:
    import pyarrow as pa

    return pa.chunked_array(arrays)


def _read_with_arrow(path: Path, positions: Mapping[int, bool], n_columns: int) -> Generator[list[Any]]:
    """Yield the columns of each block, the header being its first row."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    options, names = list_pandas_options(path), [str(position) for position in range(n_columns)]
    quoted = options["quoting"] == csv.QUOTE_MINIMAL
    kinds = {
        str(position): pa.dictionary(pa.int32(), pa.string()) if is_category else pa.string()
        for position, is_category in positions.items()
    }
    opened = gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")
    with opened as stream, pa.PythonFile(_Checked(cast(IO[bytes], stream), quoted=quoted), mode="r") as source:
        with arrow_csv.open_csv(
            source,
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names),
            parse_options=arrow_csv.ParseOptions(
                delimiter=options["sep"], quote_char='"' if quoted else False, newlines_in_values=quoted
            ),
            convert_options=arrow_csv.ConvertOptions(column_types=kinds, include_columns=list(kinds)),
        ) as reader:
            for batch in reader:
                yield list(batch.columns)


class _Checked:
    """A binary stream that stops at what Arrow and pandas read in different ways.

    These are quotes inside a field, a last field whose quotes are not closed, NUL, and carriage returns that end a line
    alone.
    """

    def __init__(self, stream: IO[bytes], *, quoted: bool) -> None:
        self._stream, self._quoted, self._n_quotes, self._last, self.closed = stream, quoted, 0, b"", False

    def read(self, n_bytes: int = -1) -> bytes:
        """Read some bytes."""
        block = self._stream.read(n_bytes)
        n_quotes = block.count(b'"') if self._quoted else 0
        self._n_quotes += n_quotes
        suspicious = n_quotes or b"\r" in block or b"\x00" in block
        if (suspicious and _ODD.search(block)) or (self._last == b"\r" and block[:1] != b"\n"):
            raise _Odd
        if not block and self._n_quotes % 2:
            raise _Odd
        self._last = block[-1:]
        return block

    def close(self) -> None:
        """Close nothing: whoever has opened the stream does it."""
        self.closed = True


def _read_with_pandas(path: Path, positions: Mapping[int, bool]) -> Generator[list[Any]]:
    """Yield the columns of each block, the header being its first row."""
    import pyarrow as pa

    with pd.read_csv(path, chunksize=BLOCK_ROWS, **list_pandas_options(path)) as reader:
        for frame in reader:
            arrays = []
            for position, is_category in positions.items():
                texts = frame[position] if position in frame else pd.Series([""] * len(frame), dtype="str")
                array = pa.array(texts.fillna("").tolist(), pa.string())
                arrays.append(array.dictionary_encode() if is_category else array)
            yield arrays
