"""Read a table of scores or ranks that another system has saved, and the two forms that all formats become.

Users and items are the source's tokens. `GivenPairs` has one entry for each listed pair, `GivenMatrix` a score of each
user for each of some items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from hellm_recbole.data.importers.ids import BLANKS
from hellm_recbole.data.importers.tabular import check_filled, read_table
from hellm_recbole.errors import DataError, shorten

ScoreFormat = Literal["table", "trec", "mmrec", "npz"]
Order = Literal["score", "rank"]
FIELDS = {"user": "user_id", "item": "item_id", "score": "score", "rank": "rank"}  # field -> default name of its column

_SAFE_CHARACTERS = 15  # as many digits as a number of 64 bits always holds
_LARGEST_RANK = 10**9

Values = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class GivenPairs:
    """Listed pairs, with a value that orders the items of a user.

    Attributes:
        user: [N] token of the user of each pair.
        item: [N] token of the item.
        value: [N] score, or the negative rank; higher is better. It is never NaN.
        order: whether scores or ranks were given.
        form: format of the file.
    """

    user: list[str]
    item: list[str]
    value: npt.NDArray[np.float64]
    order: Order
    form: ScoreFormat


@dataclass(frozen=True)
class GivenMatrix:
    """Scores of B users for the same C items.

    Attributes:
        user: [B] token of the user of each row.
        item: [C] token of the item of each column.
        score: [B, C] scores, never NaN.
        form: format of the file.
    """

    user: list[str]
    item: list[str]
    score: Values
    form: ScoreFormat = "npz"


def read_score_table(path: Path, columns: Mapping[str, str], by: Order | None) -> GivenPairs:
    """Read a table with a row for each pair.

    Raises:
        DataError: a column is missing, a field is empty or no number, or ranks and scores contradict each other.
    """
    for field in columns:
        if field not in FIELDS:
            raise DataError(f"--columns: unknown field {field!r}; there are {', '.join(FIELDS)}")
    frame = read_table(path, [columns.get(field, FIELDS[field]) for field in ("user", "item")])
    names = {field: _find_column(frame, path, field, columns.get(field)) for field in FIELDS}
    if names["score"] is None and names["rank"] is None:
        raise DataError(
            f"{path}: there is neither a column 'score' nor a column 'rank' among {', '.join(map(str, frame.columns))}"
            "; name one with --columns score=COLUMN or rank=COLUMN"
        )
    user, item = (_read_ids(frame, path, names[field]) for field in ("user", "item"))
    numbers = {
        field: read_numbers(frame[names[field]].tolist(), path, str(names[field]))
        for field in ("score", "rank")
        if names[field] is not None
    }
    if by is not None and by not in numbers:
        raise DataError(f"{path}: there is no column of {by}s for --by {by}; name it with --columns {by}=COLUMN")
    order: Order = by or ("score" if "score" in numbers else "rank")
    if order == "score":
        _check_digits(frame[names["score"]].tolist(), numbers["score"], path)
    if "rank" in numbers and order == "rank":
        _check_ranks(user, numbers["rank"], path)
    if len(numbers) == 2 and by is None:
        _compare_orders(user, numbers["score"], numbers["rank"], path)
    return GivenPairs(user, item, numbers["score"] if order == "score" else -numbers["rank"], order, "table")


def _find_column(frame: pd.DataFrame, path: Path, field: str, named: str | None) -> str | None:
    """Find the column of a field; RecBole writes names such as `user_id:token`. None for one that may be missing.

    Raises:
        DataError: there is no such column.
    """
    name = FIELDS[field] if named is None else named
    found = [str(column) for column in frame.columns if column == name or str(column).partition(":")[0] == name]
    if found:
        return name if name in found else found[0]
    if named is None and field in ("score", "rank"):
        return None
    raise DataError(
        f"{path}: no column {name!r} among {', '.join(map(str, frame.columns))}; name it with --columns {field}=COLUMN"
    )


def _read_ids(frame: pd.DataFrame, path: Path, name: str | None) -> list[str]:
    """Return the ids of a column, without blanks around them; none is empty."""
    assert name is not None
    column = frame[name].astype("str").str.strip(BLANKS)
    return [str(token) for token in check_filled(column, path, name)]


def read_numbers(texts: Sequence[Any], path: Path, name: str) -> npt.NDArray[np.float64]:
    """Convert the texts of a column to numbers, with all their digits.

    Raises:
        DataError: a text is not a number, or is NaN; the message names the row.
    """
    try:
        values = np.array(texts, dtype=np.str_).astype(np.float64)
    except ValueError:
        values = pd.to_numeric(pd.Series(texts, dtype="str"), errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        row = int(bad[0])
        raise DataError(f"{path}: row {row + 1}: {name} is {shorten(str(texts[row]))!r}; give every row a number")
    return values


def _check_digits(texts: Sequence[Any], score: npt.NDArray[np.float64], path: Path) -> None:
    """Refuse scores that a number of 64 bits does not hold: too large ones, and different ones that become equal.

    A score of -inf is accepted: RecBole gives it to masked items, which are then not listed.

    Raises:
        DataError: there is one.
    """
    infinite = np.flatnonzero(np.isposinf(score))
    if len(infinite):
        row = int(infinite[0])
        raise DataError(
            f"{path}: row {row + 1}: score is {shorten(str(texts[row]))!r}; give finite numbers, and leave out items "
            "that are not recommended"
        )
    kept: dict[float, Decimal] = {}
    for row, text in enumerate(map(str, texts)):
        if len(text) <= _SAFE_CHARACTERS:
            continue
        exact = Decimal(text.strip())
        if kept.setdefault(float(score[row]), exact) != exact:
            raise DataError(
                f"{path}: row {row + 1}: score {shorten(text)!r} has more digits than a number of 64 bits holds, and "
                "becomes equal to another score; give ranks, or smaller numbers"
            )


def _check_ranks(user: list[str], rank: npt.NDArray[np.float64], path: Path) -> None:
    """Refuse ranks that are not 1, 2, 3, ... for each user.

    Raises:
        DataError: a rank is no whole number from 1, occurs twice in a list, or is missing in one.
    """
    wrong = np.flatnonzero((rank < 1) | (rank != np.floor(rank)) | (rank > _LARGEST_RANK))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"{path}: row {row + 1}: rank is {rank[row]:g}; ranks are whole numbers, and the first is 1")
    frame = pd.DataFrame({"user": user, "rank": rank.astype(np.int64)})
    repeated = np.flatnonzero(frame.duplicated().to_numpy())
    if len(repeated):
        row = int(repeated[0])
        raise DataError(
            f"{path}: row {row + 1}: user {user[row]!r} has rank {int(rank[row])} twice; give each rank once, or give "
            "scores"
        )
    lists = frame.groupby("user", sort=False)["rank"].agg(["size", "max"])
    short = lists[lists["size"] < lists["max"]]
    if len(short):
        first = str(short.index[0])
        present = set(frame["rank"][frame["user"] == first])
        gap = next(number for number in range(1, len(present) + 2) if number not in present)
        raise DataError(
            f"{path}: user {first!r} has no item of rank {gap}, but one of rank {max(present)}; number the items of "
            "each list from 1 without a gap"
        )


def _compare_orders(user: list[str], score: npt.NDArray[np.float64], rank: npt.NDArray[np.float64], path: Path) -> None:
    """Refuse a table in which a lower rank has a lower score.

    Raises:
        DataError: there is such a pair of rows; the message says how to choose.
    """
    order = pd.DataFrame({"user": user, "rank": rank}).sort_values(["user", "rank"], kind="stable").index.to_numpy()
    owner = pd.Series(user).to_numpy()[order]
    rising = np.flatnonzero((score[order][1:] > score[order][:-1]) & (owner[1:] == owner[:-1]))
    if len(rising):
        row = int(order[rising[0] + 1])
        raise DataError(
            f"{path}: row {row + 1}: the score of user {user[row]!r} is higher than that of the rank before; say what "
            "orders the lists with --by score or --by rank"
        )
