"""The Amazon review data of the McAuley lab: from its files, as published, to RecBole's atomic tables.

Three vintages, which differ in format and in the names of their fields (`VINTAGES`):

`amazon2014`  reviews in JSON lines; metadata in lines of Python, a dict literal each, parsed but never run
`amazon2018`  JSON lines; some titles are a page's script, some items have several metadata lines
`amazon2023`  JSON lines; times in milliseconds; the item is the parent of its variants

Files may be gzipped or plain. They are read line by line, and of a review only user, item and time are kept, so memory
grows by about 16 bytes a review, 150 a user or item, and the texts of the items reviewed.
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

MAX_LINE_BYTES = 16 * 2**20  # parsed JSON takes up to some 35 times its length in memory
MAX_LITERAL_BYTES = 2**20  # a syntax tree takes up to some 500 times the length of its text in memory
FIRST_TIME_S, END_TIME_S = 788_918_400, 4_102_444_800  # the years 1995 to 2099, in seconds since 1970

_GZIP = b"\x1f\x8b"
_BUFFER_BYTES = 2**20
_BAR_EVERY = 1024  # lines
_SHOWN_CHARS = 30  # of a value, in messages
_TICKS_PER_S = {"seconds": 1, "milliseconds": 1000}
_TOKEN = re.compile(r'[^\s"\x00-\x1f\x7f\ud800-\udfff]+')  # what an atomic file holds without quoting
_SCRIPT_TITLES = ("aPageStart", "getTime")  # the script that the crawler of 2018 took for a title
_NO_PICTURE = "no-img-sm"  # the shop's picture of a missing picture
_COLUMNS = ("title", "brand", "categories", "description")


@dataclass(frozen=True)
class Vintage:
    """The formats of one publication of the data, and the names of the fields that are read.

    Attributes:
        name: key in `VINTAGES`.
        user: field of a review.
        item: field of a review.
        time: field of a review.
        time_unit: of `time`, counted since 1970.
        metadata: a line of metadata is JSON or a Python literal.
        meta_item: field of the metadata: the item, as in the reviews.
        title: field of the metadata.
        brand: field of the metadata.
        categories: field of the metadata.
        description: field of the metadata.
        images: fields of the metadata that hold addresses of pictures, best first.
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
    """Who reviewed what and when, in the order of the file.

    Attributes:
        users: token of each user, in order of first occurrence.
        items: token of each item, likewise.
        user: [E] row in `users`.
        item: [E] row in `items`.
        time: [E] in the unit of the vintage.
        warnings: what was skipped, in words.
    """

    users: list[str]
    items: list[str]
    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    time: IdArray
    warnings: list[str]


@dataclass(frozen=True)
class _Item:
    """What the metadata say of an item: the texts of `_COLUMNS`, cleaned, and addresses of pictures."""

    texts: tuple[str, ...]
    images: tuple[str, ...]
    script_title: bool

    @property
    def title(self) -> str:
        return self.texts[0]


def read_amazon(reviews: Path, metadata: Path | None, vintage: Vintage, *, progress: bool) -> AtomicData:
    """The tables of one category.

    `timestamp` is the source's own whole number, in seconds or (amazon2023) milliseconds, so that no order is lost;
    interactions stay in the order of the file. A second review of an item by the same user at the same time is
    dropped; at another time it is kept. Items without metadata are kept, but have no row in the table of items.

    Args:
        reviews: file of reviews, gzipped or plain.
        metadata: file of item metadata, gzipped or plain; None reads no texts and no addresses of pictures.
        vintage: of both files.
        progress: show progress bars.

    Raises:
        DataError: a file is missing, broken, of another format, or does not fit the other one.
    """
    read = read_reviews(reviews, vintage, progress=progress)
    kept, notes = _without_repeats(read, reviews)
    items, images = None, {}
    if metadata is not None:
        described, meta_notes = _read_metadata(metadata, set(read.items), vintage, progress=progress)
        if not described:
            raise DataError(f"{metadata} has no line for any item of {reviews}; take the metadata of the same category")
        items = pd.DataFrame(
            [(token, *item.texts) for token, item in described.items()], columns=["item_id", *_COLUMNS], dtype="str"
        )
        images = {token: item.images for token, item in described.items() if item.images}
        notes += _gaps(metadata, described, len(read.items)) + meta_notes
    return AtomicData(
        inter=_frame(read, kept),
        inter_types={"user_id": "token", "item_id": "token", "timestamp": "float"},
        items=items,
        item_types={} if items is None else {"item_id": "token", **dict.fromkeys(_COLUMNS, "token_seq")},
        features={},
        time_known=True,
        files=[reviews] if metadata is None else [reviews, metadata],
        warnings=[*read.warnings, *notes],
        image_urls=images,
    )


def read_reviews(path: Path, vintage: Vintage, *, progress: bool) -> Reviews:
    """User, item and time of each review.

    Args:
        path: file of reviews, gzipped or plain.
        vintage: of the file.
        progress: show a progress bar.

    Raises:
        DataError: the file is missing, broken or holds no review, or a line is not a review of that vintage.
    """
    lines = _Lines(path, MAX_LINE_BYTES, progress=progress)
    user_key, item_key, time_key = vintage.user, vintage.item, vintage.time
    ticks = _TICKS_PER_S[vintage.time_unit]
    first, end = FIRST_TIME_S * ticks, END_TIME_S * ticks
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user_codes, item_codes, times = array("i"), array("i"), array("q")
    with contextlib.closing(lines.each()) as each:
        for line in each:
            record = _json(line, lines)
            try:
                user, item, time = record[user_key], record[item_key], record[time_key]
            except KeyError as error:
                raise _missing(lines, "review", str(error.args[0]), vintage) from error
            if type(time) is not int or not first <= time < end:
                time = _time(time, vintage, lines)
            user_code = users.get(user) if type(user) is str else None
            if user_code is None:
                user_code = users[_token(user, user_key, lines)] = len(users)
            item_code = items.get(item) if type(item) is str else None
            if item_code is None:
                item_code = items[_token(item, item_key, lines)] = len(items)
            user_codes.append(user_code)
            item_codes.append(item_code)
            times.append(time)
    if not times:
        raise DataError(f"{path} holds no review; put the file there again")
    return Reviews(
        users=list(users),
        items=list(items),
        user=np.frombuffer(user_codes, dtype=np.int32),
        item=np.frombuffer(item_codes, dtype=np.int32),
        time=np.frombuffer(times, dtype=np.int64),
        warnings=lines.warnings(),
    )


def _without_repeats(reviews: Reviews, path: Path) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """[E] rows that are the first of their user, item and time, and what there is to say of repeats."""
    pair = reviews.user * np.int64(len(reviews.items)) + reviews.item
    order = np.lexsort((reviews.time, pair))  # stable: of equal rows the first in the file comes first
    same_pair = np.diff(pair[order]) == 0
    exact = same_pair & (np.diff(reviews.time[order]) == 0)
    kept = np.ones(len(pair), dtype=np.bool_)
    kept[order[1:][exact]] = False
    notes = []
    if n_exact := int(exact.sum()):
        notes.append(
            f"{path.name}: {_n(n_exact, 'exact repeat')} of a user, item and time {_were(n_exact)} dropped, "
            "the first of each kept"
        )
    if n_later := int(same_pair.sum()) - n_exact:
        notes.append(
            f"{path.name}: {_n(n_later, 'further review')} of an item by the same user at another time "
            f"{_were(n_later)} kept"
        )
    return kept, notes


def _frame(reviews: Reviews, kept: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """The interactions, as text."""
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
    """What the metadata say of the wanted items, and what there is to say of the file."""
    is_literal = vintage.metadata == "literal"
    lines = _Lines(path, MAX_LITERAL_BYTES if is_literal else MAX_LINE_BYTES, progress=progress)
    mentions = re.compile(rf"{re.escape(vintage.meta_item)}['\"]\s*:\s*['\"]([^'\"]*)['\"]")
    found: dict[str, _Item] = {}
    n_repeated = 0
    with contextlib.closing(lines.each()) as each:
        for line in each:
            if is_literal:
                text = _decoded(line, lines)
                # Parsing costs far more than this look. A description may name an item in the same way, so
                # that there are two: then one that is wanted suffices to parse the line, which tells whose it is.
                if (mentioned := mentions.findall(text)) and not any(token in wanted for token in mentioned):
                    continue
                record = _literal(text, lines)
            else:
                record = _json(line, lines)
            if vintage.meta_item not in record:
                raise _missing(lines, "item", vintage.meta_item, vintage)
            token = _token(record[vintage.meta_item], vintage.meta_item, lines)
            if token not in wanted:
                continue
            item = _item(record, vintage)
            if token in found:
                n_repeated += 1
            if token not in found or (item.title and not found[token].title):
                found[token] = item
    notes = lines.warnings()
    if n_repeated:
        notes.append(
            f"{path.name}: {_n(n_repeated, 'further line')} of an item {_were(n_repeated)} left out; "
            "the first with a title, else the first, was taken"
        )
    return found, notes


def _gaps(path: Path, described: Mapping[str, _Item], n_items: int) -> list[str]:
    """What the metadata do not say of the items of the reviews."""
    notes = []
    if missing := n_items - len(described):
        notes.append(f"{path.name}: {missing:,} of {n_items:,} items {'has' if missing == 1 else 'have'} no line")
    if untitled := sum(not item.title for item in described.values()):
        notes.append(f"{path.name}: {_n(untitled, 'item')} {'has' if untitled == 1 else 'have'} no title")
    if scripts := sum(item.script_title for item in described.values()):
        notes.append(
            f"{path.name}: {_n(scripts, 'item')} {'has' if scripts == 1 else 'have'} a page's script in place of a "
            "title, which counts as none"
        )
    return notes


def _item(record: Mapping[str, Any], vintage: Vintage) -> _Item:
    """Texts and pictures of one line of metadata; a field that is missing or of another type counts as empty."""
    title = " ".join(_strings(record.get(vintage.title)))
    script_title = any(mark in title for mark in _SCRIPT_TITLES)
    texts = (
        "" if script_title else strip_markup(title),
        strip_markup(" ".join(_strings(record.get(vintage.brand)))),
        ", ".join(_unique(map(strip_markup, _strings(record.get(vintage.categories))))),
        strip_markup(" ".join(_strings(record.get(vintage.description)))),
    )
    addresses = (address.strip() for field in vintage.images for address in _addresses(record.get(field)))
    return _Item(texts, _unique(address for address in addresses if _NO_PICTURE not in address), script_title)


def _strings(value: object) -> list[str]:
    """The strings of a string, a list, or a list of lists."""
    if not isinstance(value, list):
        return [value] if isinstance(value, str) else []
    inner = (part for element in value for part in (element if isinstance(element, list) else [element]))
    return [part for part in inner if isinstance(part, str)]


def _addresses(value: object) -> list[str]:
    """Addresses in a string, a list of strings, or a list of pictures, each a dict of sizes."""
    pictures = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    pictures.sort(key=lambda picture: picture.get("variant") != "MAIN")
    sizes = ([picture.get(size) for size in ("hi_res", "large", "thumb")] for picture in pictures)
    best = [next((size for size in each if isinstance(size, str) and size.strip()), "") for each in sizes]
    return best or _strings(value)


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    """Each value once, in order, empty ones left out."""
    return tuple(dict.fromkeys(filter(None, values)))


class _Lines:
    """The lines of a text file, gzipped or plain, without surrounding white space; empty ones are skipped and counted.

    Attributes:
        number: of the line at hand, from 1.
        n_empty: lines skipped so far.
    """

    def __init__(self, path: Path, limit_bytes: int, *, progress: bool) -> None:
        self.path, self.number, self.n_empty = path, 0, 0
        self._limit_bytes, self._progress = limit_bytes, progress

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"

    def each(self) -> Generator[bytes]:
        """The lines, once; close it, and the bar ends before a fault is told.

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
                packed = file.read(len(_GZIP)) == _GZIP
                file.seek(0)
                # The outer buffer makes `readline` a call into C; that of GzipFile itself is Python.
                stream = io.BufferedReader(gzip.GzipFile(fileobj=file), _BUFFER_BYTES) if packed else file
                readline, limit_bytes = stream.readline, self._limit_bytes
                while line := readline(limit_bytes + 1):
                    self.number += 1
                    if len(line) > limit_bytes:
                        raise DataError(
                            f"{self}: the line is longer than {limit_bytes / 2**20:.0f} MiB; "
                            "take the file as published, one record a line"
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
                f"{self.path}: the gzip file is cut off or broken after line {self.number}; fetch it again"
            ) from error
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read: {error.strerror or error}; check the folder it should be in"
            ) from error

    def warnings(self) -> list[str]:
        """What was skipped, in words."""
        if not self.n_empty:
            return []
        return [f"{self.path.name}: {_n(self.n_empty, 'empty line')} {_were(self.n_empty)} skipped"]


# `json.loads` takes a third longer for a short line: it looks for white space around it.
_decode_json = json.JSONDecoder().raw_decode


def _json(line: bytes, where: _Lines) -> dict[str, Any]:
    """The object that a line holds."""
    text = _decoded(line, where)
    try:
        record, end = _decode_json(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "not valid JSON"
        raise DataError(f"{where}: the line is {reason}; mend it or remove it") from error
    if end != len(text) or type(record) is not dict:
        raise DataError(f"{where}: the line is not one JSON object; mend it or remove it")
    return record


def _literal(text: str, where: _Lines) -> dict[Any, Any]:
    """The dict that a line of Python writes out; names, calls and whatever else would have to be run are refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's opinion of backslashes in somebody's description
            record = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataError(f"{where}: the line is not a Python literal; mend it or remove it") from error
    if type(record) is not dict:
        raise DataError(f"{where}: the line is not one Python dict; mend it or remove it")
    return record


def _decoded(line: bytes, where: _Lines) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text; convert the file to UTF-8") from error


def _token(value: object, field: str, where: _Lines) -> str:
    """A user or an item, fit for an atomic file."""
    if isinstance(value, str) and _TOKEN.fullmatch(value):
        return value
    raise DataError(f"{where}: {field} is {_shown(value)}, not text without spaces and quotes; mend that field")


def _time(value: object, vintage: Vintage, where: _Lines) -> int:
    """A time that is not an integer within range: a whole number written as a float, or a fault."""
    whole = value if type(value) is int else None
    if isinstance(value, float) and value.is_integer():
        whole = int(value)
    if whole is None:
        raise DataError(
            f"{where}: {vintage.time} is {_shown(value)}, not a whole number of {vintage.time_unit}; mend that field"
        )
    ticks = _TICKS_PER_S[vintage.time_unit]
    if not FIRST_TIME_S * ticks <= whole < END_TIME_S * ticks:
        raise DataError(
            f"{where}: {vintage.time} is {_shown(value)}, which as {vintage.time_unit} since 1970 is not in the years "
            "1995 to 2099; mend that field, or check that the file is of that vintage"
        )
    return whole


def _missing(where: _Lines, record: str, field: str, vintage: Vintage) -> DataError:
    return DataError(
        f"{where}: the {record} has no {field!r}; mend the line, or check that the file is of {vintage.name}"
    )


def _shown(value: object) -> str:
    """A value for a message, on one line and short whatever it is."""
    if isinstance(value, str):
        return json.dumps(value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "...")
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if type(value) is int and abs(value) >= 10**_SHOWN_CHARS:
        return "a huge number"
    return str(value)


def _n(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
