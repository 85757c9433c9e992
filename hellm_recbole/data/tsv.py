"""Reading tab-separated files strictly: every fault names file and line.

All columns are kept as text, so that what is copied stays as it was; `numbers` converts where numbers are needed.
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

FIELD_TYPES = ("token", "token_seq", "float", "float_seq")  # of RecBole's atomic files
MAX_LINE = 1 << 24  # bytes; the longest honest line, a user with a million interactions, has fewer
FIRST_ROW = 2  # line of the first row: lines count from 1, and line 1 is the header


@dataclass(frozen=True)
class Table:
    """A tab-separated file.

    Attributes:
        path: where it came from; row r is line r + 2.
        frame: its rows, every column as text.
        types: column -> atomic type; empty for files whose header has no types.
    """

    path: Path
    frame: pd.DataFrame
    types: Mapping[str, str]

    def line(self, row: int) -> str:
        """Where row `row` is, for messages."""
        return f"{self.path}:{row + FIRST_ROW}"

    def require(self, columns: Sequence[str], what_would_do: str) -> None:
        """Check that columns exist and that none of their fields is empty.

        Raises:
            DataError: naming the missing column, or the line of the first empty field.
        """
        for column in columns:
            if column not in self.frame:
                found = ", ".join(self.frame.columns)
                raise DataError(f"{self.path}:1: no column {column!r} among {found}; {what_would_do}")
            empty = np.flatnonzero((self.frame[column] == "").to_numpy(dtype=bool))
            if len(empty):
                raise DataError(f"{self.line(int(empty[0]))}: {column} is empty; give every row a value")

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """[rows] a column as finite numbers.

        Raises:
            DataError: naming the line of the first field that is not one.
        """
        values = pd.to_numeric(self.frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            row = int(bad[0])
            found = self.frame[column].iloc[row]
            raise DataError(f"{self.line(row)}: {column} is {found!r}, not a finite number; mend that field")
        return values


def read_text(path: Path) -> str:
    """A text file, its lines ended by line feeds alone.

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
    """Lines of a text file, without line ends.

    Raises:
        DataError: the file is missing, unreadable, not UTF-8 or empty, or a line is longer than MAX_LINE.
    """
    refuse_endless_lines(path)
    lines = read_text(path).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def refuse_endless_lines(path: Path) -> None:
    """Look for a line end within every MAX_LINE bytes, before the whole file is read into memory.

    Raises:
        DataError: naming the line that has none.
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
                        f"{path}:{number}: longer than {MAX_LINE >> 20} MiB; give each row a line of its own"
                    )
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the folder it should be in") from error


def read_table(path: Path, *, typed: bool) -> Table:
    """A tab-separated file with a header and without quoting.

    Args:
        path: the file.
        typed: the header reads `name:type` as in RecBole's atomic files.

    Raises:
        DataError: the file is missing, empty or not UTF-8; the header repeats a column or has a wrong type; a line has
            more or fewer fields than the header.
    """
    lines = read_lines(path)
    header = lines[0].split("\t")
    types: dict[str, str] = {}
    if typed:
        types = _typed_header(path, header)
        header = [field.split(":")[0] for field in header]
    for column in header:
        if header.count(column) > 1:
            raise DataError(f"{path}:1: column {column!r} occurs twice; keep one of them")
    if len(lines) == 1:
        raise DataError(f"{path}: no row after the header; give it at least one")
    for number, line in enumerate(lines, start=1):
        if (n_fields := line.count("\t") + 1) != len(header):
            raise DataError(f"{path}:{number}: {n_fields} fields where the header has {len(header)}; mend that line")
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


def _typed_header(path: Path, header: Sequence[str]) -> dict[str, str]:
    types = {}
    for field in header:
        name, _, kind = field.partition(":")
        if not name or kind not in FIELD_TYPES:
            raise DataError(
                f"{path}:1: header field {field!r} is not `name:type` with a type among {', '.join(FIELD_TYPES)}"
            )
        types[name] = kind
    return types


def _read_bytes(path: Path) -> bytes:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the folder it should be in") from error
    text = text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    if not text.strip():
        raise DataError(f"{path} is empty; put the data there again")
    return text
