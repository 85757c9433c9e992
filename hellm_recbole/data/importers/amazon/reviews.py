"""Read the reviews of a category; only user, item and time of a review are kept.

Memory grows by about 16 bytes for each review, and 150 bytes for each user or item.
"""

from __future__ import annotations

import contextlib
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.importers.amazon.lines import (
    MAX_LINE_BYTES,
    RecordLines,
    check_token,
    make_missing_error,
    parse_json,
    quote_value,
)
from hellm_recbole.data.importers.amazon.vintages import Vintage
from hellm_recbole.errors import DataError
from hellm_recbole.types import IdArray

FIRST_TIME_S, END_TIME_S = 788_918_400, 4_102_444_800  # the years 1995 to 2099, in seconds since 1970

_TICKS_PER_S = {"seconds": 1, "milliseconds": 1000}


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


def read_reviews(path: Path, vintage: Vintage, *, progress: bool) -> Reviews:
    """Read user, item and time of each review.

    Args:
        path: file of reviews, gzipped or plain.
        vintage: vintage of the file.
        progress: whether to show a progress bar.

    Raises:
        DataError: the file is missing, broken or without reviews, or a line is not a review of this vintage.
    """
    user_key, item_key, time_key = vintage.user, vintage.item, vintage.time
    lines = RecordLines(path, MAX_LINE_BYTES, progress=progress, keys=(user_key, item_key, time_key))
    ticks = _TICKS_PER_S[vintage.time_unit]
    first, end = FIRST_TIME_S * ticks, END_TIME_S * ticks
    count_repeated = lines.count_repeated_keys
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user_codes, item_codes, times = array("i"), array("i"), array("q")
    with contextlib.closing(lines.read()) as records:
        for line in records:
            record = parse_json(line, lines)
            count_repeated(line)
            try:
                user, item, time = record[user_key], record[item_key], record[time_key]
            except KeyError as error:
                raise make_missing_error(lines, "review", str(error.args[0]), vintage) from error
            if type(time) is not int or not first <= time < end:
                time = _check_time(time, vintage, lines)
            user_code = users.get(user) if type(user) is str else None
            if user_code is None:
                user_code = users[check_token(user, user_key, lines)] = len(users)
            item_code = items.get(item) if type(item) is str else None
            if item_code is None:
                item_code = items[check_token(item, item_key, lines)] = len(items)
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
        warnings=lines.describe_lines(),
    )


def _check_time(value: object, vintage: Vintage, where: RecordLines) -> int:
    """Return a time that was not a valid int, if it is an integer written as a float; otherwise raise an error."""
    whole = value if type(value) is int else None
    if isinstance(value, float) and value.is_integer():
        whole = int(value)
    if whole is None:
        raise DataError(
            f"{where}: {vintage.time} is {quote_value(value)}, not a whole number of {vintage.time_unit}; "
            "fix that field"
        )
    ticks = _TICKS_PER_S[vintage.time_unit]
    if not FIRST_TIME_S * ticks <= whole < END_TIME_S * ticks:
        raise DataError(
            f"{where}: {vintage.time} is {quote_value(value)}, which as {vintage.time_unit} since 1970 is not in the "
            "years 1995 to 2099; fix that field, or check that the file is of that vintage"
        )
    return whole
