"""Read tab-separated files strictly; errors name the file and the line.

All columns are read as text, so that copied fields do not change. `Table.numbers` converts a column to numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from hellm_recbole.data.columns import convert_numbers, make_categories, make_text
from hellm_recbole.errors import DataError

FIELD_TYPES = ("token", "token_seq", "float", "float_seq")  # column types of RecBole's atomic files
MAX_LINE = 1 << 24  # bytes; a line with a user's million interactions is shorter
BLOCK_BYTES = 1 << 23  # of a file that are read at a time
FIRST_ROW = 2  # line number of the first row: line numbers start at 1, and line 1 is the header


@dataclass(frozen=True)
class Table:
    """Content of a tab-separated file.

    Attributes:
        path: path of the file; row r is line r + 2.
        frame: rows of the file, every column as text.
        types: column -> atomic type; empty if the header has no types.
    """

    path: Path
    frame: pd.DataFrame
    types: Mapping[str, str]

    def line(self, row: int) -> str:
        """Return the position of a row as `path:line`, for messages."""
        return f"{self.path}:{row + FIRST_ROW}"

    def require(self, columns: Sequence[str], advice: str) -> None:
        """Check that columns exist and that none of their fields is empty.

        Args:
            columns: names of the columns.
            advice: advice for the message about a missing column.

        Raises:
            DataError: a column is missing or a field is empty; the error names the column, and the line of the first
                empty field.
        """
        for column in columns:
            if column not in self.frame:
                existing = ", ".join(self.frame.columns)
                raise DataError(f"{self.path}:1: no column {column!r} among {existing}; {advice}")
            empty_rows = np.flatnonzero((self.frame[column] == "").to_numpy(dtype=bool))
            if len(empty_rows):
                raise DataError(f"{self.line(int(empty_rows[0]))}: {column} is empty; give every row a value")

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """Convert a column to finite numbers, one for each row.

        Raises:
            DataError: a field is not a finite number; the error names the line of the first such field.
        """
        values: npt.NDArray[np.float64] = convert_numbers(self.frame[column])
        bad_rows = np.flatnonzero(~np.isfinite(values))
        if len(bad_rows):
            row = int(bad_rows[0])
            value = self.frame[column].iloc[row]
            raise DataError(f"{self.line(row)}: {column} is {value!r}, not a finite number; correct that field")
        return values


def read_text(path: Path) -> str:
    """Read a text file; line ends become line feeds.

    Raises:
        DataError: the file is missing, unreadable, not UTF-8 or empty.
    """
    text = _read_bytes(path)
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text; convert the file to UTF-8") from error


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file, without line ends.

    Raises:
        DataError: the file is missing, unreadable, not UTF-8 or empty, or a line is longer than MAX_LINE.
    """
    refuse_endless_lines(path)
    lines = read_text(path).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def refuse_endless_lines(path: Path) -> None:
    """Refuse a file with a line longer than MAX_LINE bytes, before the whole file is read into memory.

    Raises:
        DataError: a line is too long, or the file cannot be read; the error names the line.
    """
    try:
        if path.stat().st_size <= MAX_LINE:
            return
        with path.open("rb") as stream:
            if not _has_endless_line(stream):
                return
            stream.seek(0)
            number, line = 0, b""
            while line := stream.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DataError(
                        f"{path}:{number}: the line is longer than {MAX_LINE >> 20} MiB; write each row on its own line"
                    )
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}; check that the file exists and is readable"
        ) from error


def _has_endless_line(stream: BinaryIO) -> bool:
    """Return whether a line may be longer than MAX_LINE: then a block of half that size has no line feed."""
    block = bytearray(MAX_LINE // 2)
    while (n_bytes := stream.readinto(block)) == len(block):  # type: ignore[attr-defined]
        if block.find(b"\n", 0, n_bytes) < 0:
            return True
    return False


def read_table(path: Path, *, typed: bool, categories: Collection[str] = ()) -> Table:
    """Read a tab-separated file with a header and without quoting.

    Args:
        path: path of the file.
        typed: whether the fields of the header are `name:type`, as in RecBole's atomic files.
        categories: columns that become categorical, because the same fields occur again and again, as ids do.

    Raises:
        DataError: the file is missing, empty or not UTF-8; the header repeats a column or has a wrong type; or a line
            has more or fewer fields than the header.
    """
    refuse_endless_lines(path)
    header, types = _read_header(path, typed=typed)
    columns = _read_columns(path, header, categories)
    frame = _read_frame(path, header) if columns is None else pd.DataFrame(columns)
    return Table(path, frame, types)


def _read_header(path: Path, *, typed: bool) -> tuple[list[str], dict[str, str]]:
    """Read the names of the columns, and their types if the header has them."""
    try:
        with path.open("rb") as stream:
            line = stream.readline().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
        header = line.removesuffix(b"\n").decode("utf-8").split("\t") if line.strip() else []
    except (OSError, UnicodeDecodeError):
        header = []
    if not header:
        header = read_lines(path)[0].split("\t")  # says what is wrong with the file
    types: dict[str, str] = {}
    if typed:
        types = _parse_typed_header(path, header)
        header = [field.split(":")[0] for field in header]
    for column in header:
        if header.count(column) > 1:
            raise DataError(f"{path}:1: column {column!r} occurs twice; keep one of them")
    return header, types


def _read_columns(path: Path, header: Sequence[str], categories: Collection[str]) -> dict[str, pd.Series[str]] | None:
    """Read the columns of a table with Arrow.

    Returns:
        Column -> fields; None if the table has a faulty line or characters that Arrow reads in another way, such as a
        carriage return inside a field.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = [str(position) for position in range(len(header))]
    kinds = [pa.dictionary(pa.int32(), pa.string()) if name in categories else pa.string() for name in header]
    try:
        with arrow_csv.open_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, column_names=names, skip_rows=1
            ),
            parse_options=arrow_csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=len(header) > 1),
            convert_options=arrow_csv.ConvertOptions(column_types=dict(zip(names, kinds, strict=True))),
        ) as reader:
            batches = list(reader)
    except (pa.ArrowInvalid, OSError):
        return None
    if sum(map(len, batches)) != _count_lines(path) - 1 or not any(map(len, batches)):
        return None
    columns = {}
    for position, name in enumerate(header):
        chunks = [batch.column(position) for batch in batches]
        columns[name] = make_categories(chunks) if name in categories else make_text(pa.chunked_array(chunks))
    return columns


def _count_lines(path: Path) -> int:
    """Count the lines of a file; the last one may lack its line feed."""
    n_lines, last = 0, b"\n"
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            n_lines += block.count(b"\n")
            last = block[-1:]
    return n_lines + (last != b"\n")


def _find_faulty_line(path: Path, header: Sequence[str]) -> None:
    """Refuse the first line that is not UTF-8, or else the first with more or fewer fields than the header.

    Raises:
        DataError: there is such a line.
    """
    fault = None
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}:{number}: not UTF-8 text; convert the file to UTF-8") from error
            if fault is None and (n_fields := line.count(b"\t") + 1) != len(header):
                fault = number, n_fields
    if fault is not None:
        raise DataError(
            f"{path}:{fault[0]}: the line has {fault[1]} fields, but the header has {len(header)}; correct that line"
        )


def _read_frame(path: Path, header: Sequence[str]) -> pd.DataFrame:
    """Read the rows of a table as `read_table` does, and say which line is faulty."""
    _find_faulty_line(path, header)
    lines = read_lines(path)
    if len(lines) == 1:
        raise DataError(f"{path} has no row after the header; add at least one row")
    frame: pd.DataFrame = pd.read_csv(
        io.StringIO("\n".join(lines[1:]) + "\n"),
        sep="\t",
        names=list(header),
        dtype=str,
        quoting=csv.QUOTE_NONE,
        na_filter=False,
        lineterminator="\n",
        skip_blank_lines=False,
        index_col=False,
    )
    return frame


def _parse_typed_header(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Parse the fields `name:type` of a header.

    Raises:
        DataError: a field has no name or no known type.
    """
    types = {}
    for field in header:
        name, _, kind = field.partition(":")
        if not name or kind not in FIELD_TYPES:
            raise DataError(
                f"{path}:1: header field {field!r} is not `name:type`; choose the type from {', '.join(FIELD_TYPES)}"
            )
        types[name] = kind
    return types


def _read_bytes(path: Path) -> bytes:
    """Read a file without its byte order mark; line ends become line feeds.

    Raises:
        DataError: the file is missing, unreadable or empty.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}; check that the file exists and is readable"
        ) from error
    text = text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    if not text.strip():
        raise DataError(f"{path} is empty; replace it by a file with data")
    return text
