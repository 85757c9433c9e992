"""Read files of one record a line, gzipped or plain; errors name the file and the line."""

from __future__ import annotations

import ast
import gzip
import io
import json
import re
import warnings
import zlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from hellm_recbole.data.importers.amazon.vintages import Vintage
from hellm_recbole.errors import DataError
from hellm_recbole.system.work_bar import BYTES, WorkBar

MAX_LINE_BYTES = 16 * 2**20  # parsed JSON needs up to about 35 times its length in memory
MAX_LITERAL_BYTES = 2**20  # a syntax tree needs up to about 500 times the length of its text in memory

_GZIP = b"\x1f\x8b"
_BUFFER_BYTES = 2**20
_BAR_EVERY = 1024  # lines
_SHOWN_CHARS = 30  # longest value in a message
_TOKEN = re.compile(r'[^\s"\x00-\x1f\x7f\ud800-\udfff]+')  # an id that an atomic file holds without quotes


class RecordLines:
    """Reader of a text file, gzipped or plain, that strips each line and skips empty lines.

    `keys` are the keys of a record that are read, each between two of one of the `quotes`; see `count_repeated_keys`.

    Attributes:
        number: number of the current line, from 1.
        n_empty: number of lines skipped so far.
        n_repeated: number of records so far that have a key twice.
    """

    def __init__(
        self, path: Path, limit_bytes: int, *, progress: bool, keys: Sequence[str] = (), quotes: str = '"'
    ) -> None:
        self.path, self.number, self.n_empty, self.n_repeated = path, 0, 0, 0
        self._limit_bytes, self._progress = limit_bytes, progress
        self._marks = [(key, f"{quote}{key}{quote}".encode()) for key in keys for quote in quotes]

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"

    def read(self) -> Generator[bytes]:
        """Yield the lines once; a caller that closes the generator ends the progress bar before it prints an error.

        Raises:
            DataError: the file cannot be read or is a broken gzip, or a line is too long.
        """
        try:
            with (
                self.path.open("rb") as file,
                WorkBar(self.path.name, self.path.stat().st_size, BYTES, shown=self._progress) as bar,
            ):
                compressed = file.read(len(_GZIP)) == _GZIP
                file.seek(0)
                # The outer buffer makes `readline` fast, because GzipFile has its own only in Python.
                stream = io.BufferedReader(gzip.GzipFile(fileobj=file), _BUFFER_BYTES) if compressed else file
                readline, limit_bytes = stream.readline, self._limit_bytes
                while line := readline(limit_bytes + 1):
                    self.number += 1
                    if len(line) > limit_bytes:
                        raise DataError(
                            f"{self}: the line is longer than {limit_bytes / 2**20:.0f} MiB; "
                            "use the file as published, with one record on each line"
                        )
                    if self.number == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")
                    if line := line.strip():
                        yield line
                    else:
                        self.n_empty += 1
                    if self.number % _BAR_EVERY == 0:
                        bar.update(file.tell() - bar.completed)
                bar.update(file.tell() - bar.completed)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.path}: the gzip file is cut off or broken after line {self.number}; download it again"
            ) from error
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}; check its folder") from error

    def count_repeated_keys(self, line: bytes) -> None:
        """Count a record that has one of the `keys` twice; the parsers take the last value of such a key.

        Args:
            line: the line of the record, which was parsed without an error.
        """
        for key, mark in self._marks:
            # The search is fast, and most lines end here. A text may hold the same characters, so it is checked.
            if line.count(mark) > 1 and _count_key(line.decode("utf-8"), key) > 1:
                self.n_repeated += 1
                return

    def describe_lines(self) -> list[str]:
        """Return sentences about skipped lines and repeated keys, if there are any."""
        notes = []
        if self.n_empty:
            notes.append(
                f"{self.path.name}: {format_count(self.n_empty, 'empty line')} {choose_verb(self.n_empty)} skipped"
            )
        if self.n_repeated:
            has = "has" if self.n_repeated == 1 else "have"
            notes.append(
                f"{self.path.name}: {format_count(self.n_repeated, 'line')} {has} a key twice, of which the last value "
                "was taken"
            )
        return notes


# For a short line `json.loads` takes a third longer, because it searches for white space around it.
_decode_json = json.JSONDecoder().raw_decode


def parse_json(line: bytes, where: RecordLines) -> dict[str, Any]:
    """Return the JSON object of a line."""
    text = decode_line(line, where)
    try:
        record, end = _decode_json(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "not valid JSON"
        raise DataError(f"{where}: the line is {reason}; fix it or remove it") from error
    if end != len(text) or type(record) is not dict:
        raise DataError(f"{where}: the line is not one JSON object; fix it or remove it")
    return record


def parse_literal(text: str, where: RecordLines) -> dict[Any, Any]:
    """Return the dict of a Python literal; anything that would have to be run, such as a name or a call, is refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns about backslashes in descriptions
            record = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataError(f"{where}: the line is not a Python literal; fix it or remove it") from error
    if type(record) is not dict:
        raise DataError(f"{where}: the line is not one Python dict; fix it or remove it")
    return record


def decode_line(line: bytes, where: RecordLines) -> str:
    """Decode a line as UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text; convert the file to UTF-8") from error


def _count_key(text: str, key: str) -> int:
    """Count how often the outermost object of a JSON text or of a Python literal has a key.

    >>> _count_key('{"a": 1, "b": {"a": 2}, "a": 3}', "a"), _count_key("{'a': 'a', 'b': 1}", "a")
    (2, 1)
    """
    pairs: list[tuple[str, Any]] = []

    def keep_pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # the outermost object comes last
        return dict(found)

    try:
        json.loads(text, object_pairs_hook=keep_pairs)
    except ValueError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # see `parse_literal`
            tree = ast.parse(text, mode="eval").body
        keys = tree.keys if isinstance(tree, ast.Dict) else []
        return sum(isinstance(node, ast.Constant) and node.value == key for node in keys)
    return sum(name == key for name, _ in pairs)


def check_token(value: object, field: str, where: RecordLines) -> str:
    """Return the id of a user or an item, if it is valid in an atomic file."""
    if isinstance(value, str) and _TOKEN.fullmatch(value):
        return value
    raise DataError(f"{where}: {field} is {quote_value(value)}, not text without spaces and quotes; fix that field")


def make_missing_error(where: RecordLines, record: str, field: str, vintage: Vintage) -> DataError:
    """Return the error for a record without a field."""
    return DataError(
        f"{where}: the {record} has no {field!r}; fix the line, or check that the file is of {vintage.name}"
    )


def quote_value(value: object) -> str:
    """Format a value for a message, short and on one line."""
    if isinstance(value, str):
        return json.dumps(value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "...")
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if type(value) is int and abs(value) >= 10**_SHOWN_CHARS:
        return "a huge number"
    return str(value)


def format_count(count: int, noun: str) -> str:
    """Format a number with its noun, in the plural if needed."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def choose_verb(count: int) -> str:
    """Return "was" or "were" for a number of things."""
    return "was" if count == 1 else "were"
