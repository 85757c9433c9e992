"""Read tab-separated files strictly; errors name the file and the line.

All columns are read as text, so that copied fields do not change. `Table.numbers` converts a column to numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hellm_recbole.errors import DataError

FIELD_TYPES = ("token", "token_seq", "float", "float_seq")  # column types of RecBole's atomic files
MAX_LINE = 1 << 24  # bytes; a line with a user's million interactions is shorter
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
        values = pd.to_numeric(self.frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
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


def read_table(path: Path, *, typed: bool) -> Table:
    """Read a tab-separated file with a header and without quoting.

    Args:
        path: path of the file.
        typed: whether the fields of the header are `name:type`, as in RecBole's atomic files.

    Raises:
        DataError: the file is missing, empty or not UTF-8; the header repeats a column or has a wrong type; or a line
            has more or fewer fields than the header.
    """
    lines = read_lines(path)
    header = lines[0].split("\t")
    types: dict[str, str] = {}
    if typed:
        types = _parse_typed_header(path, header)
        header = [field.split(":")[0] for field in header]
    for column in header:
        if header.count(column) > 1:
            raise DataError(f"{path}:1: column {column!r} occurs twice; keep one of them")
    if len(lines) == 1:
        raise DataError(f"{path} has no row after the header; add at least one row")
    for number, line in enumerate(lines, start=1):
        if (n_fields := line.count("\t") + 1) != len(header):
            raise DataError(
                f"{path}:{number}: the line has {n_fields} fields, but the header has {len(header)}; correct that line"
            )
    frame = pd.read_csv(
        io.StringIO("\n".join(lines[1:]) + "\n"),
        sep="\t",
        names=header,
        dtype=str,
        quoting=csv.QUOTE_NONE,
        na_filter=False,
        lineterminator="\n",
        skip_blank_lines=False,
        index_col=False,
    )
    return Table(path, frame, types)


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
