"""Ratings of a prepared dataset, found by the tokens of user and item and never by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.tsv import read_table
from hellm_recbole.errors import DataError
from hellm_recbole.types import TokenArray

_PAIR = ["user_id", "item_id"]


def find_ratings(folder: Path, column: str, user: TokenArray, item: TokenArray) -> npt.NDArray[np.float64]:
    """Find the ratings of pairs of a user and an item in the interactions of a prepared dataset.

    Args:
        folder: folder of the dataset.
        column: column of `NAME.inter` with the ratings, which are numbers.
        user: [T] tokens of users.
        item: [T] tokens of items.

    Returns:
        [T] ratings.

    Raises:
        DataError: there is no such column, a rating is missing or no number, a pair is not an interaction of the
            dataset, or it has two ratings.
    """
    table = read_table(folder / f"{read_manifest(folder).name}.inter", typed=True)
    table.require(
        (*_PAIR, column),
        "like and dislike need ratings, so prepare the dataset from a source that has a rating for each "
        "interaction, or leave the task out (--task hr20)",
    )
    known = pd.DataFrame({**{name: table.frame[name] for name in _PAIR}, "rating": table.numbers(column)})
    known = known.drop_duplicates()
    pairs = pd.DataFrame({"user_id": user, "item_id": item}, dtype=object)
    repeated = known[known.duplicated(_PAIR)][_PAIR]
    ambiguous = pairs.merge(repeated.astype(object), on=_PAIR)
    if len(ambiguous):
        first = ambiguous.iloc[0]
        raise DataError(
            f"{table.path}: user {first['user_id']!r} rated the item {first['item_id']!r} more than once with "
            "different ratings; keep one of them"
        )
    known = known.drop_duplicates(_PAIR).astype({name: object for name in _PAIR})
    ratings = pairs.merge(known, on=_PAIR, how="left", validate="many_to_one")["rating"].to_numpy(np.float64)
    missing = np.flatnonzero(np.isnan(ratings))
    if len(missing):
        first_user, first_item = str(user[missing[0]]), str(item[missing[0]])
        raise DataError(
            f"{table.path} has no interaction of user {first_user!r} with item {first_item!r}; prepare the dataset "
            "again as it was for the run"
        )
    return ratings
