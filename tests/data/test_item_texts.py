from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.sources import read_recbole, read_sequences
from hellm_recbole.data.item_texts import read_item_texts
from hellm_recbole.errors import DataError

REQUEST = Request(name="films", category="", columns={}, table=None, progress=False)


def test_texts_take_the_first_column_that_is_filled(sequences: Path, recbole: Path) -> None:
    items = read_sequences(sequences, REQUEST).items
    assert read_item_texts(items, ["c", "b", "a", "d"], ["title|keywords"], sequences) == [
        "blue soap",
        "green brush",
        "12 red comb",
        "",
    ]
    films = read_recbole(recbole, REQUEST).items
    assert read_item_texts(films, ["x", "y", "z"], ["movie_title", "class"], recbole) == [
        "Heat. Crime",
        "Babe. Comedy Drama",
        "Odd",
    ]


def test_unknown_text_columns_are_named(sequences: Path) -> None:
    with pytest.raises(DataError, match=r"no text column 'titel'; choose --text from title, keywords"):
        read_item_texts(read_sequences(sequences, REQUEST).items, ["a"], ["titel"], sequences)
    with pytest.raises(DataError, match="has no item texts"):
        read_item_texts(None, ["a"], ["title"], sequences)


@pytest.mark.parametrize(
    ("wanted", "example"),
    [
        (["title|keywords", "brand", "categories"], "`hellm-recbole prepare --text 'title|keywords'` takes those of"),
        (["keywords|brand", "title"], "`hellm-recbole prepare --text keywords title` takes those of keywords"),
    ],
)
def test_a_missing_column_shows_how_to_use_the_others(sequences: Path, wanted: list[str], example: str) -> None:
    """An item_text.tsv of an earlier version has only title and keywords."""
    items = read_sequences(sequences, REQUEST).items
    with pytest.raises(DataError) as caught:
        read_item_texts(items, ["a"], wanted, sequences)
    message = str(caught.value)
    assert message.startswith(f"{sequences} has no text column 'brand'; choose --text from title, keywords; ")
    assert example in message
    assert "\n" not in message
