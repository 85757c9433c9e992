"""Ten interactions that all splits are checked on by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.data.splits.named import NamedSplit, split_by_name
from hellm_recbole.types import Histories, Targets

Row = tuple[str, str, float]  # user, item, time
# The user x and the items d and e come late. The file is not in the order of time.
TEN_ROWS: tuple[Row, ...] = (
    ("w", "e", 10),
    ("u", "a", 1),
    ("u", "b", 2),
    ("v", "a", 2),
    ("u", "c", 4),
    ("x", "a", 9),
    ("v", "c", 5),
    ("w", "b", 6),
    ("u", "d", 7),
    ("v", "b", 8),
)


def make_dataset(rows: Sequence[Row], *, time_known: bool = True) -> Dataset:
    """Make a dataset whose only feature of an item is the number of its token's first letter."""
    users, items = ([row[column] for row in rows] for column in (0, 1))
    user, user_tokens = pd.factorize(np.array(users, dtype=object))
    item, item_tokens = pd.factorize(np.array(items, dtype=object))
    letters = np.array([[0], *([ord(token[0])] for token in item_tokens)], dtype=np.float32)
    return Dataset(
        name="ten",
        user_tokens=np.array(["", *user_tokens]),
        item_tokens=np.array(["", *item_tokens]),
        user=user.astype(np.int64) + 1,
        item=item.astype(np.int64) + 1,
        time=np.array([row[2] for row in rows], dtype=np.float64),
        time_known=time_known,
        part=None,
        features={"text": letters},
        k_core=0,
        n_dropped=0,
        paper="Ten",
        item_text=("", *(f"title of {token}" for token in item_tokens)),
        covered={"text": np.array([False, *[True] * len(item_tokens)])},
    )


def split_rows(rows: Sequence[Row], text: str) -> tuple[Dataset, NamedSplit]:
    """Split rows as `--split` says."""
    return split_by_name(make_dataset(rows), text, lambda: [f"{row[2]:.0f}" for row in rows])


def list_pairs(split: Split, pairs: Targets | Histories) -> list[str]:
    """List the (user, item) pairs as texts, by user and then in their order."""
    user = pairs.repeat_users() if isinstance(pairs, Histories) else pairs.user
    item = pairs.items if isinstance(pairs, Histories) else pairs.item
    return [f"{one}{other}" for one, other in zip(split.user_tokens[user], split.item_tokens[item], strict=True)]
