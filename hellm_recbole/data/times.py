"""Order times exactly, and convert them to numbers that RecBole can represent.

RecBole stores every float of an atomic file as float32. In float32, two times become equal if they differ by up to
128 s (times in seconds) or 131 s (times in milliseconds). In float64, times in nanoseconds become equal. Therefore
times are compared as text. If they are not small whole numbers, `timestamp` in `NAME.inter` holds their ranks, and the
column SOURCE_TIME holds the times themselves.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from itertools import pairwise

import numpy as np
import pandas as pd

from hellm_recbole.data.columns import format_integers, number_tokens, read_integers
from hellm_recbole.errors import DataError
from hellm_recbole.types import IdArray

TIME, SOURCE_TIME = "timestamp", "source_time"  # columns of NAME.inter
MAX_WHOLE = 2**24  # float32 represents all whole numbers up to this one exactly


def order_times(times: pd.Series[str]) -> tuple[IdArray, bool]:
    """Convert times to whole numbers in their exact order; equal times give equal numbers.

    >>> order_times(pd.Series(["3", "1.0", "-2"], dtype="str"))
    (array([ 3,  1, -2]), False)
    >>> order_times(pd.Series(["1700000000000000001", "17e17", "1700000000000000001.0"], dtype="str"))
    (array([1, 0, 1]), True)

    Args:
        times: [E] finite numbers, as text.

    Returns:
        [E] the times, if all are whole numbers of size at most MAX_WHOLE, else their dense ranks from 0; whether these
        numbers are ranks.

    Raises:
        DataError: a time is too close to 0 to be compared exactly.
    """
    integers = read_integers(times)  # needs no Python object for each time
    # pandas 2 refuses numbers that are too large or too small
    values = pd.to_numeric(times, errors="coerce").to_numpy() if integers is None else integers
    if values.dtype.kind in "iu":
        if values.min() >= -MAX_WHOLE and values.max() <= MAX_WHOLE:
            return values.astype(np.int64), False
        return np.unique(values, return_inverse=True)[1].astype(np.int64), True
    codes, texts = number_tokens(times)
    exact = [_parse_decimal(str(text)) for text in texts]  # float64 has about 16 digits only
    if all(-MAX_WHOLE <= value <= MAX_WHOLE and value == value.to_integral_value() for value in exact):
        return np.array([int(value) for value in exact], dtype=np.int64)[codes], False
    order = sorted(range(len(exact)), key=exact.__getitem__)
    rank = np.zeros(len(exact), dtype=np.int64)
    rank[order] = np.cumsum([0, *(exact[earlier] != exact[later] for earlier, later in pairwise(order))])
    return rank[codes], True


def fit_times(inter: pd.DataFrame, max_whole: int = MAX_WHOLE) -> pd.DataFrame:
    """Convert the times of interactions so that float32 keeps their order and their ties.

    If this needs ranks, `timestamp` holds the ranks, and a new column, SOURCE_TIME, holds the times. Ranks are computed
    over all times of the dataset, or over the times of each user if the dataset has more different times than float32
    can represent.

    Args:
        inter: table with user_id, timestamp and other columns, without SOURCE_TIME.
        max_whole: largest rank to write.

    Returns:
        The table with converted times; `inter` itself if its times need no ranks.
    """
    rank, are_ranks = order_times(inter[TIME])
    if not are_ranks:
        return inter
    if rank.max() > max_whole:
        rank = _rank_by_user(number_tokens(inter["user_id"])[0], rank)
    return inter.assign(**{TIME: format_integers(rank).set_axis(inter.index), SOURCE_TIME: inter[TIME]})


def restore_times(inter: pd.DataFrame) -> pd.DataFrame:
    """Undo `fit_times`.

    Args:
        inter: table of an atomic file; if it has a column SOURCE_TIME, that column holds finite numbers.

    Returns:
        The input of `fit_times` if `inter` can be its output, else `inter` itself.
    """
    if TIME not in inter or SOURCE_TIME not in inter:
        return inter
    source = inter.drop(columns=SOURCE_TIME).assign(**{TIME: inter[SOURCE_TIME]})
    written = fit_times(source)
    return source if SOURCE_TIME in written and written[TIME].equals(inter[TIME]) else inter


def _parse_decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:  # an exponent of 20 digits
        raise DataError(f"time {text!r} is too close to 0 to be compared; replace it by 0") from error


def _rank_by_user(user: IdArray, rank: IdArray) -> IdArray:
    """Return the [E] dense ranks from 0 among the ranks of the same user."""
    order = np.lexsort((rank, user))
    user_changes, rank_changes = np.diff(user[order]) != 0, np.diff(rank[order]) != 0
    new_user = np.concatenate([[True], user_changes])
    count = np.cumsum(np.concatenate([[True], user_changes | rank_changes]))
    user_rank = np.empty_like(rank)
    user_rank[order] = count - count[new_user][np.cumsum(new_user) - 1]
    return user_rank
