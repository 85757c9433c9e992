"""Small files of reviews and metadata, and what was read from them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.importers.amazon.importer import read_amazon
from hellm_recbole.data.importers.amazon.vintages import VINTAGES
from hellm_recbole.errors import DataError

REVIEW = {"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1390176000}


def review(user: str, item: str, time: int, **more: object) -> dict[str, Any]:
    """Return a review in the format of 2014 and 2018."""
    return {
        "reviewerID": user,
        "asin": item,
        "reviewerName": "J. Doe",
        "helpful": [3, 3],
        "reviewText": "Soft.\nWould buy again",
        "overall": 5.0,
        "summary": "Soft",
        "unixReviewTime": time,
        "reviewTime": "01 20, 2014",
        **more,
    }


def write(path: Path, lines: Iterable[str | dict[str, Any]]) -> Path:
    """Write one record on each line; gzip the file if its name ends in .gz."""
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(vintage: str, reviews: Path, metadata: Path | None = None) -> AtomicData:
    return read_amazon(reviews, metadata, VINTAGES[vintage], progress=False)


def list_interactions(data: AtomicData) -> list[tuple[str, str, str]]:
    return list(data.inter[["user_id", "item_id", "timestamp"]].itertuples(index=False, name=None))


def read_items(data: AtomicData) -> dict[str, tuple[str, ...]]:
    """Return item -> title, brand, categories, description."""
    assert data.items is not None
    return {row[0]: row[1:] for row in data.items.itertuples(index=False, name=None)}


def check_error(message: str, vintage: str, reviews: Path, metadata: Path | None = None) -> None:
    with pytest.raises(DataError) as caught:
        read(vintage, reviews, metadata)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(reviews)) + len(str(metadata)) + 250
