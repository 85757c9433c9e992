"""Import the Amazon review data of the McAuley lab: convert the published files to RecBole's atomic tables.

Three vintages differ in format and in the names of their fields (`VINTAGES`):

`amazon2014`  reviews in JSON lines; each line of the metadata is a Python dict literal, which is parsed, never run
`amazon2018`  JSON lines; some titles are the script of a web page, some items have several lines of metadata
`amazon2023`  JSON lines; times in milliseconds; the item is the parent of its variants

Files may be gzipped or plain. They are read line by line, and only user, item and time of a review are kept. So memory
grows by about 16 bytes for each review, 150 bytes for each user or item, and the texts of the reviewed items.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import io
import json
import re
import warnings
import zlib
from array import array
from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.importers.text import strip_markup
from hellm_recbole.errors import DataError
from hellm_recbole.types import IdArray

MAX_LINE_BYTES = 16 * 2**20  # parsed JSON needs up to about 35 times its length in memory
MAX_LITERAL_BYTES = 2**20  # a syntax tree needs up to about 500 times the length of its text in memory
FIRST_TIME_S, END_TIME_S = 788_918_400, 4_102_444_800  # the years 1995 to 2099, in seconds since 1970

_GZIP = b"\x1f\x8b"
_BUFFER_BYTES = 2**20
_BAR_EVERY = 1024  # lines
_SHOWN_CHARS = 30  # longest value in a message
_TICKS_PER_S = {"seconds": 1, "milliseconds": 1000}
_TOKEN = re.compile(r'[^\s"\x00-\x1f\x7f\ud800-\udfff]+')  # an id that an atomic file holds without quotes
_SCRIPT_TITLES = ("aPageStart", "getTime")  # marks of the script that the crawler of 2018 stored as a title
_NO_PICTURE = "no-img-sm"  # the shop's placeholder for a missing picture
_COLUMNS = ("title", "brand", "categories", "description")


@dataclass(frozen=True)
class Vintage:
    """Format of one publication of the data, and the names of the fields that are read.

    Attributes:
        name: key in `VINTAGES`.
        user: field of the user in a review.
        item: field of the item in a review.
        time: field of the time in a review.
        time_unit: unit of `time`, counted since 1970.
        metadata: format of a line of metadata: JSON or a Python literal.
        meta_item: field of the item in the metadata, the same id as in the reviews.
        title: field of the title in the metadata.
        brand: field of the brand in the metadata.
        categories: field of the categories in the metadata.
        description: field of the description in the metadata.
        images: fields of the picture addresses in the metadata, best first.
    """

    name: str
    user: str
    item: str
    time: str
    time_unit: Literal["seconds", "milliseconds"]
    metadata: Literal["json", "literal"]
    meta_item: str
    title: str
    brand: str
    categories: str
    description: str
    images: tuple[str, ...]


VINTAGES: Mapping[str, Vintage] = {
    vintage.name: vintage
    for vintage in (
        Vintage(
            name="amazon2014",
            user="reviewerID",
            item="asin",
            time="unixReviewTime",
            time_unit="seconds",
            metadata="literal",
            meta_item="asin",
            title="title",
            brand="brand",
            categories="categories",
            description="description",
            images=("imUrl",),
        ),
        Vintage(
            name="amazon2018",
            user="reviewerID",
            item="asin",
            time="unixReviewTime",
            time_unit="seconds",
            metadata="json",
            meta_item="asin",
            title="title",
            brand="brand",
            categories="category",
            description="description",
            images=("imageURLHighRes", "imageURL"),
        ),
        Vintage(
            name="amazon2023",
            user="user_id",
            item="parent_asin",
            time="timestamp",
            time_unit="milliseconds",
            metadata="json",
            meta_item="parent_asin",
            title="title",
            brand="store",
            categories="categories",
            description="description",
            images=("images",),
        ),
    )
}


@dataclass(frozen=True)
class Reviews:
    """Users, items and times of the E reviews in a file, in the order of the file.

    Attributes:
        users: token of each user, in the order of first occurrence.
        items: token of each item, in the order of first occurrence.
        user: [E] index in `users`.
        item: [E] index in `items`.
        time: [E] time in the unit of the vintage.
        warnings: sentences about skipped lines.
    """

    users: list[str]
    items: list[str]
    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    time: IdArray
    warnings: list[str]


@dataclass(frozen=True)
class _Item:
    """Texts of an item in the order of `_COLUMNS`, addresses of its pictures, and whether its title was a script."""

    texts: tuple[str, ...]
    images: tuple[str, ...]
    script_title: bool

    @property
    def title(self) -> str:
        return self.texts[0]


def read_amazon(reviews: Path, metadata: Path | None, vintage: Vintage, *, progress: bool) -> AtomicData:
    """Read the tables of one category.

    `timestamp` is the integer of the source, in seconds or (amazon2023) milliseconds, so that no order is lost.
    Interactions keep the order of the file. A repeated review with the same user, item and time is dropped; a repeated
    review at another time is kept. Items without metadata are kept, but are not in the table of items.

    Args:
        reviews: file of reviews, gzipped or plain.
        metadata: file of item metadata, gzipped or plain; None reads no texts and no addresses of pictures.
        vintage: vintage of both files.
        progress: whether to show progress bars.

    Raises:
        DataError: a file is missing, broken, of another format, or does not fit the other file.
    """
    parsed = read_reviews(reviews, vintage, progress=progress)
    kept, notes = _drop_repeats(parsed, reviews)
    items, images = None, {}
    if metadata is not None:
        found, meta_notes = _read_metadata(metadata, set(parsed.items), vintage, progress=progress)
        if not found:
            raise DataError(f"{metadata} has no line for any item of {reviews}; take the metadata of the same category")
        items = pd.DataFrame(
            [(token, *item.texts) for token, item in found.items()], columns=["item_id", *_COLUMNS], dtype="str"
        )
        images = {token: item.images for token, item in found.items() if item.images}
        notes += _describe_gaps(metadata, found, len(parsed.items)) + meta_notes
    return AtomicData(
        inter=_build_interactions(parsed, kept),
        inter_types={"user_id": "token", "item_id": "token", "timestamp": "float"},
        items=items,
        item_types={} if items is None else {"item_id": "token", **dict.fromkeys(_COLUMNS, "token_seq")},
        features={},
        time_known=True,
        files=[reviews] if metadata is None else [reviews, metadata],
        warnings=[*parsed.warnings, *notes],
        image_urls=images,
    )


def read_reviews(path: Path, vintage: Vintage, *, progress: bool) -> Reviews:
    """Read user, item and time of each review.

    Args:
        path: file of reviews, gzipped or plain.
        vintage: vintage of the file.
        progress: whether to show a progress bar.

    Raises:
        DataError: the file is missing, broken or without reviews, or a line is not a review of this vintage.
    """
    lines = _Lines(path, MAX_LINE_BYTES, progress=progress)
    user_key, item_key, time_key = vintage.user, vintage.item, vintage.time
    ticks = _TICKS_PER_S[vintage.time_unit]
    first, end = FIRST_TIME_S * ticks, END_TIME_S * ticks
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user_codes, item_codes, times = array("i"), array("i"), array("q")
    with contextlib.closing(lines.read()) as records:
        for line in records:
            record = _parse_json(line, lines)
            try:
                user, item, time = record[user_key], record[item_key], record[time_key]
            except KeyError as error:
                raise _make_missing_error(lines, "review", str(error.args[0]), vintage) from error
            if type(time) is not int or not first <= time < end:
                time = _check_time(time, vintage, lines)
            user_code = users.get(user) if type(user) is str else None
            if user_code is None:
                user_code = users[_check_token(user, user_key, lines)] = len(users)
            item_code = items.get(item) if type(item) is str else None
            if item_code is None:
                item_code = items[_check_token(item, item_key, lines)] = len(items)
            user_codes.append(user_code)
            item_codes.append(item_code)
            times.append(time)
    if not times:
        raise DataError(f"{path} holds no review; download the file again")
    return Reviews(
        users=list(users),
        items=list(items),
        user=np.frombuffer(user_codes, dtype=np.int32),
        item=np.frombuffer(item_codes, dtype=np.int32),
        time=np.frombuffer(times, dtype=np.int64),
        warnings=lines.describe_skipped(),
    )


def _drop_repeats(reviews: Reviews, path: Path) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Return [E] whether a review is the first with its user, item and time, and sentences about repeated reviews."""
    pair = reviews.user * np.int64(len(reviews.items)) + reviews.item
    order = np.lexsort((reviews.time, pair))  # stable sort: equal reviews keep the order of the file
    same_pair = np.diff(pair[order]) == 0
    exact = same_pair & (np.diff(reviews.time[order]) == 0)
    kept = np.ones(len(pair), dtype=np.bool_)
    kept[order[1:][exact]] = False
    notes = []
    if n_exact := int(exact.sum()):
        notes.append(
            f"{path.name}: {_count(n_exact, 'exact repeat')} of a user, item and time {_choose_verb(n_exact)} dropped, "
            "the first of each kept"
        )
    if n_later := int(same_pair.sum()) - n_exact:
        notes.append(
            f"{path.name}: {_count(n_later, 'further review')} of an item by the same user at another time "
            f"{_choose_verb(n_later)} kept"
        )
    return kept, notes


def _build_interactions(reviews: Reviews, kept: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """Return the table of kept interactions, with every column as text."""
    return pd.DataFrame(
        {
            "user_id": pd.array(reviews.users, dtype="str").take(reviews.user[kept]),
            "item_id": pd.array(reviews.items, dtype="str").take(reviews.item[kept]),
            "timestamp": pd.Series(reviews.time[kept]).astype("str"),
        }
    )


def _read_metadata(
    path: Path, wanted: Collection[str], vintage: Vintage, *, progress: bool
) -> tuple[dict[str, _Item], list[str]]:
    """Return the wanted items that the metadata describe, and sentences about the file."""
    is_literal = vintage.metadata == "literal"
    lines = _Lines(path, MAX_LITERAL_BYTES if is_literal else MAX_LINE_BYTES, progress=progress)
    mentions = re.compile(rf"{re.escape(vintage.meta_item)}['\"]\s*:\s*['\"]([^'\"]*)['\"]")
    found: dict[str, _Item] = {}
    n_repeated = 0
    with contextlib.closing(lines.read()) as records:
        for line in records:
            if is_literal:
                text = _decode(line, lines)
                # This search is much faster than parsing. A description may contain the same pattern, so there may be
                # several matches. The line is parsed if any of them is wanted, and then its own item is known.
                if (mentioned := mentions.findall(text)) and not any(token in wanted for token in mentioned):
                    continue
                record = _parse_literal(text, lines)
            else:
                record = _parse_json(line, lines)
            if vintage.meta_item not in record:
                raise _make_missing_error(lines, "item", vintage.meta_item, vintage)
            token = _check_token(record[vintage.meta_item], vintage.meta_item, lines)
            if token not in wanted:
                continue
            item = _build_item(record, vintage)
            if token in found:
                n_repeated += 1
            if token not in found or (item.title and not found[token].title):
                found[token] = item
    notes = lines.describe_skipped()
    if n_repeated:
        notes.append(
            f"{path.name}: {_count(n_repeated, 'further line')} of an item {_choose_verb(n_repeated)} left out; "
            "the first with a title, else the first, was taken"
        )
    return found, notes


def _describe_gaps(path: Path, described: Mapping[str, _Item], n_items: int) -> list[str]:
    """Return sentences about reviewed items without metadata or without a title."""
    notes = []
    if missing := n_items - len(described):
        notes.append(f"{path.name}: {missing:,} of {n_items:,} items {'has' if missing == 1 else 'have'} no line")
    if untitled := sum(not item.title for item in described.values()):
        notes.append(f"{path.name}: {_count(untitled, 'item')} {'has' if untitled == 1 else 'have'} no title")
    if scripts := sum(item.script_title for item in described.values()):
        notes.append(
            f"{path.name}: {_count(scripts, 'item')} {'has' if scripts == 1 else 'have'} a page's script in place of a "
            "title, which counts as none"
        )
    return notes


def _build_item(record: Mapping[str, Any], vintage: Vintage) -> _Item:
    """Return the texts and picture addresses of a line of metadata; a missing or malformed field counts as empty."""
    title = " ".join(_collect_strings(record.get(vintage.title)))
    script_title = any(mark in title for mark in _SCRIPT_TITLES)
    texts = (
        "" if script_title else strip_markup(title),
        strip_markup(" ".join(_collect_strings(record.get(vintage.brand)))),
        ", ".join(_remove_duplicates(map(strip_markup, _collect_strings(record.get(vintage.categories))))),
        strip_markup(" ".join(_collect_strings(record.get(vintage.description)))),
    )
    addresses = (address.strip() for field in vintage.images for address in _collect_addresses(record.get(field)))
    return _Item(
        texts, _remove_duplicates(address for address in addresses if _NO_PICTURE not in address), script_title
    )


def _collect_strings(value: object) -> list[str]:
    """Return the strings in a string, a list, or a list of lists."""
    if not isinstance(value, list):
        return [value] if isinstance(value, str) else []
    inner = (part for element in value for part in (element if isinstance(element, list) else [element]))
    return [part for part in inner if isinstance(part, str)]


def _collect_addresses(value: object) -> list[str]:
    """Return the addresses in a string, a list of strings, or a list of pictures (each a dict of sizes)."""
    pictures = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    pictures.sort(key=lambda picture: picture.get("variant") != "MAIN")
    sizes = ([picture.get(size) for size in ("hi_res", "large", "thumb")] for picture in pictures)
    best = [next((size for size in entry if isinstance(size, str) and size.strip()), "") for entry in sizes]
    return best or _collect_strings(value)


def _remove_duplicates(values: Iterable[str]) -> tuple[str, ...]:
    """Return each non-empty value once, in order."""
    return tuple(dict.fromkeys(filter(None, values)))


class _Lines:
    """Reader of a text file, gzipped or plain, that strips each line and skips empty lines.

    Attributes:
        number: number of the current line, from 1.
        n_empty: number of lines skipped so far.
    """

    def __init__(self, path: Path, limit_bytes: int, *, progress: bool) -> None:
        self.path, self.number, self.n_empty = path, 0, 0
        self._limit_bytes, self._progress = limit_bytes, progress

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
                tqdm(
                    total=self.path.stat().st_size,
                    desc=self.path.name,
                    unit="B",
                    unit_scale=True,
                    disable=not self._progress,
                ) as bar,
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
                        bar.update(file.tell() - bar.n)
                bar.update(file.tell() - bar.n)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.path}: the gzip file is cut off or broken after line {self.number}; download it again"
            ) from error
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}; check its folder") from error

    def describe_skipped(self) -> list[str]:
        """Return a sentence about the skipped lines, if there are any."""
        if not self.n_empty:
            return []
        return [f"{self.path.name}: {_count(self.n_empty, 'empty line')} {_choose_verb(self.n_empty)} skipped"]


# For a short line `json.loads` takes a third longer, because it searches for white space around it.
_decode_json = json.JSONDecoder().raw_decode


def _parse_json(line: bytes, where: _Lines) -> dict[str, Any]:
    """Return the JSON object of a line."""
    text = _decode(line, where)
    try:
        record, end = _decode_json(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "not valid JSON"
        raise DataError(f"{where}: the line is {reason}; fix it or remove it") from error
    if end != len(text) or type(record) is not dict:
        raise DataError(f"{where}: the line is not one JSON object; fix it or remove it")
    return record


def _parse_literal(text: str, where: _Lines) -> dict[Any, Any]:
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


def _decode(line: bytes, where: _Lines) -> str:
    """Decode a line as UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text; convert the file to UTF-8") from error


def _check_token(value: object, field: str, where: _Lines) -> str:
    """Return the id of a user or an item, if it is valid in an atomic file."""
    if isinstance(value, str) and _TOKEN.fullmatch(value):
        return value
    raise DataError(f"{where}: {field} is {_quote(value)}, not text without spaces and quotes; fix that field")


def _check_time(value: object, vintage: Vintage, where: _Lines) -> int:
    """Return a time that was not a valid int, if it is an integer written as a float; otherwise raise an error."""
    whole = value if type(value) is int else None
    if isinstance(value, float) and value.is_integer():
        whole = int(value)
    if whole is None:
        raise DataError(
            f"{where}: {vintage.time} is {_quote(value)}, not a whole number of {vintage.time_unit}; fix that field"
        )
    ticks = _TICKS_PER_S[vintage.time_unit]
    if not FIRST_TIME_S * ticks <= whole < END_TIME_S * ticks:
        raise DataError(
            f"{where}: {vintage.time} is {_quote(value)}, which as {vintage.time_unit} since 1970 is not in the years "
            "1995 to 2099; fix that field, or check that the file is of that vintage"
        )
    return whole


def _make_missing_error(where: _Lines, record: str, field: str, vintage: Vintage) -> DataError:
    """Return the error for a record without a field."""
    return DataError(
        f"{where}: the {record} has no {field!r}; fix the line, or check that the file is of {vintage.name}"
    )


def _quote(value: object) -> str:
    """Format a value for a message, short and on one line."""
    if isinstance(value, str):
        return json.dumps(value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "...")
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if type(value) is int and abs(value) >= 10**_SHOWN_CHARS:
        return "a huge number"
    return str(value)


def _count(count: int, noun: str) -> str:
    """Format a number with its noun, in the plural if needed."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _choose_verb(count: int) -> str:
    """Return "was" or "were" for a number of things."""
    return "was" if count == 1 else "were"
