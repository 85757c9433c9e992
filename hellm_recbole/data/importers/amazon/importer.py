"""Make the tables of a category from its files of reviews and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.columns import format_integers, make_codes
from hellm_recbole.data.importers.amazon.lines import choose_verb, format_count
from hellm_recbole.data.importers.amazon.metadata import COLUMNS, AmazonItem, read_metadata
from hellm_recbole.data.importers.amazon.reviews import Reviews, read_reviews
from hellm_recbole.data.importers.amazon.vintages import Vintage
from hellm_recbole.errors import DataError


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
        found, meta_notes = read_metadata(metadata, set(parsed.items), vintage, progress=progress)
        if not found:
            raise DataError(f"{metadata} has no line for any item of {reviews}; take the metadata of the same category")
        items = pd.DataFrame(
            [(token, *item.texts) for token, item in found.items()], columns=["item_id", *COLUMNS], dtype="str"
        )
        images = {token: item.images for token, item in found.items() if item.images}
        notes += _describe_gaps(metadata, found, len(parsed.items)) + meta_notes
    return AtomicData(
        inter=_build_interactions(parsed, kept),
        inter_types={"user_id": "token", "item_id": "token", "timestamp": "float"},
        items=items,
        item_types={} if items is None else {"item_id": "token", **dict.fromkeys(COLUMNS, "token_seq")},
        features={},
        time_known=True,
        files=[reviews] if metadata is None else [reviews, metadata],
        warnings=[*parsed.warnings, *notes],
        image_urls=images,
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
            f"{path.name}: {format_count(n_exact, 'exact repeat')} of a user, item and time {choose_verb(n_exact)} "
            "dropped, the first of each kept"
        )
    if n_later := int(same_pair.sum()) - n_exact:
        notes.append(
            f"{path.name}: {format_count(n_later, 'further review')} of an item by the same user at another time "
            f"{choose_verb(n_later)} kept"
        )
    return kept, notes


def _build_interactions(reviews: Reviews, kept: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """Return the table of kept interactions, with every column as text."""
    return pd.DataFrame(
        {
            "user_id": make_codes(reviews.user[kept], reviews.users),
            "item_id": make_codes(reviews.item[kept], reviews.items),
            "timestamp": format_integers(reviews.time[kept]),
        }
    )


def _describe_gaps(path: Path, described: Mapping[str, AmazonItem], n_items: int) -> list[str]:
    """Return sentences about reviewed items without metadata or without a title."""
    notes = []
    if missing := n_items - len(described):
        notes.append(f"{path.name}: {missing:,} of {n_items:,} items {'has' if missing == 1 else 'have'} no line")
    if untitled := sum(not item.title for item in described.values()):
        notes.append(f"{path.name}: {format_count(untitled, 'item')} {'has' if untitled == 1 else 'have'} no title")
    if scripts := sum(item.script_title for item in described.values()):
        notes.append(
            f"{path.name}: {format_count(scripts, 'item')} {'has' if scripts == 1 else 'have'} a page's script in "
            "place of a title, which counts as none"
        )
    return notes
