"""Warning about a source without times; the order of its rows is used as the order in time."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from hellm_recbole.data.importers.amazon.reviews import END_TIME_S, FIRST_TIME_S
from hellm_recbole.data.times import TIME

_WORDS = {"time", "times", "timestamp", "timestamps", "datetime", "date", "dates", "day", "ts", "epoch", "when"}
_TICKS_PER_S = (1, 10**3, 10**6, 10**9)
CHECKED_ROWS = 1000  # rows that tell whether a column may hold times


def describe_file_order(
    path: Path, frame: pd.DataFrame, used: Collection[str], *, given_split: bool, advice: str
) -> str:
    """Describe, for terminal and data card, what the order of the file decides, and which column may hold the times.

    Args:
        path: file of the source.
        frame: its rows, with every column as text.
        used: columns that hold other data than times.
        given_split: whether the source has its own split.
        advice: what to do with a column of times.
    """
    effect = "in each part, and models read histories in it" if given_split else "and each user's last row is for test"
    warning = f"{path.name} has no column {TIME!r}, so the order of its rows stands for time {effect}"
    warning = f"{warning}; unless each user's rows are oldest first,"
    others = [column for column in frame.columns if column not in used]
    likely = [column for column in others if looks_like_times(column, frame[column])]
    if not others:
        return f"{warning} sort them or add a column {TIME!r}"
    listed = [f"{column} (looks like times)" for column in likely] + [name for name in others if name not in likely]
    return f"{warning} {advice} (columns: {', '.join(listed)})"


def looks_like_times(name: str, values: pd.Series[str]) -> bool:
    """Return whether a column may hold times: by its name, or because its first values are dates or ticks since 1970.

    >>> looks_like_times("reviewTime", pd.Series(["5", "3"])), looks_like_times("rating", pd.Series(["5", "3"]))
    (True, False)
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if words and (words[-1] == "at" or _WORDS & set(words)):
        return True
    first = values.head(CHECKED_ROWS)
    numbers = pd.to_numeric(first, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if np.isfinite(numbers).any():
        return any(np.all((numbers >= FIRST_TIME_S * n) & (numbers < END_TIME_S * n)) for n in _TICKS_PER_S)
    return bool(pd.to_datetime(first, format="ISO8601", utc=True, errors="coerce").notna().all())
