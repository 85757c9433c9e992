"""The exact order of times that are text, and numbers in that order which RecBole can hold.

RecBole keeps every float of an atomic file as float32, which ties times up to 128 s apart in seconds, or 131 s in
milliseconds; float64 ties nanoseconds. So times are compared as they are written, and where they are not small whole
numbers, `timestamp` in `NAME.inter` holds their ranks, and the column SOURCE_TIME the times themselves.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from itertools import pairwise

import numpy as np
import pandas as pd

from hellm_recbole.errors import DataError
from hellm_recbole.types import IdArray

TIME, SOURCE_TIME = "timestamp", "source_time"  # columns of NAME.inter
MAX_WHOLE = 2**24  # float32 holds all whole numbers up to it


def order_times(times: pd.Series[str]) -> tuple[IdArray, bool]:
    """Whole numbers in the exact order of the times, equal where the times are equal.

    >>> order_times(pd.Series(["3", "1.0", "-2"], dtype="str"))
    (array([ 3,  1, -2]), False)
    >>> order_times(pd.Series(["1700000000000000001", "17e17", "1700000000000000001.0"], dtype="str"))
    (array([1, 0, 1]), True)

    Args:
        times: [E] finite numbers, as text.

    Returns:
        [E] the times, if all of them are whole and at most MAX_WHOLE in size, else their dense ranks from 0;
        whether these are ranks.

    Raises:
        DataError: a time is below all that can be compared exactly.
    """
    values = pd.to_numeric(times).to_numpy()
    if values.dtype.kind in "iu":
        if values.min() >= -MAX_WHOLE and values.max() <= MAX_WHOLE:
            return values.astype(np.int64), False
        return np.unique(values, return_inverse=True)[1].astype(np.int64), True
    codes, texts = pd.factorize(times)
    exact = [_decimal(str(text)) for text in texts]  # float64 ties what differs only after some 16 digits
    if all(-MAX_WHOLE <= value <= MAX_WHOLE and value == value.to_integral_value() for value in exact):
        return np.array([int(value) for value in exact], dtype=np.int64)[codes], False
    order = sorted(range(len(exact)), key=exact.__getitem__)
    rank = np.zeros(len(exact), dtype=np.int64)
    rank[order] = np.cumsum([0, *(exact[one] != exact[other] for one, other in pairwise(order))])
    return rank[codes], True


def fit_times(inter: pd.DataFrame, max_whole: int = MAX_WHOLE) -> pd.DataFrame:
    """Interactions whose `timestamp` keeps its order and its ties as float32.

    Times that are ranked here are kept in a further column, SOURCE_TIME. Ranks are those among all times of the
    dataset, or, where there are more than float32 can hold, among the times of each user.

    Args:
        inter: user_id, timestamp and other columns, without SOURCE_TIME.
        max_whole: largest rank to write.

    Returns:
        `inter` itself where its times need no ranks.
    """
    rank, ranked = order_times(inter[TIME])
    if not ranked:
        return inter
    if rank.max() > max_whole:
        rank = _rank_by_user(pd.factorize(inter["user_id"])[0].astype(np.int64), rank)
    return inter.assign(**{TIME: pd.Series(rank, index=inter.index).astype("str"), SOURCE_TIME: inter[TIME]})


def restore_times(inter: pd.DataFrame) -> pd.DataFrame:
    """The interactions that `fit_times` was given, if it wrote these, else these.

    Args:
        inter: as read from an atomic file, SOURCE_TIME, if it is there, finite numbers.
    """
    if TIME not in inter or SOURCE_TIME not in inter:
        return inter
    source = inter.drop(columns=SOURCE_TIME).assign(**{TIME: inter[SOURCE_TIME]})
    written = fit_times(source)
    return source if SOURCE_TIME in written and written[TIME].equals(inter[TIME]) else inter


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:  # an exponent of 20 digits
        raise DataError(f"time {text!r} is too close to 0 to be compared; write 0 in its place") from error


def _rank_by_user(user: IdArray, rank: IdArray) -> IdArray:
    """[E] dense ranks from 0 among the ranks of the same user."""
    order = np.lexsort((rank, user))
    user_steps, rank_steps = np.diff(user[order]) != 0, np.diff(rank[order]) != 0
    new_user = np.concatenate([[True], user_steps])
    count = np.cumsum(np.concatenate([[True], user_steps | rank_steps]))
    within = np.empty_like(rank)
    within[order] = count - count[new_user][np.cumsum(new_user) - 1]
    return within
