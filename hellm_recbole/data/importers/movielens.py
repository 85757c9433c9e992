"""Importer of MovieLens files with `::` between the fields, as in ML-1M and ML-10M.

`ratings.dat`  UserID::MovieID::Rating::Timestamp, in seconds
`movies.dat`   MovieID::Title::Genres, genres separated by `|`; in Latin-1 (ML-1M) or UTF-8
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.importers.assemble import assemble
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.text import clean_text
from hellm_recbole.data.tsv import refuse_endless_lines
from hellm_recbole.errors import DataError

RATINGS, MOVIES = "ratings.dat", "movies.dat"
INNER_FOLDER = "ml-1m"  # of the published archive
_SEPARATOR = "::"
_RATING_FIELDS = ("user_id", "item_id", "rating", "timestamp")
_MOVIE_FIELDS = ("item_id", "title", "genres")


def read_movielens(source: Path, request: Request) -> AtomicData:
    """Read kind `movielens`. Every rating is an interaction, and its value is kept in the column `rating`.

    Raises:
        DataError: a file is missing or unreadable, a line has other fields, a number is none, or a movie has two lines.
    """
    folder = source if (source / RATINGS).is_file() else source / INNER_FOLDER
    ratings, files = folder / RATINGS, [folder / RATINGS]
    inter = _read_fields(ratings, _RATING_FIELDS)
    for column in ("rating", "timestamp"):
        wrong = pd.to_numeric(inter[column], errors="coerce").isna().to_numpy(dtype=bool)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f"{ratings}:{row + 1}: {column} {inter[column].iloc[row]!r} is not a number; fix the line")
    items, item_types = None, {}
    if (movies := folder / MOVIES).is_file():
        items = _read_movies(movies)
        item_types = {"item_id": "token", "title": "token_seq", "genres": "token_seq"}
        files.append(movies)
    return assemble(source, inter, {"rating": "float"}, items, item_types, time_known=True, rows=None, files=files)


def _read_movies(path: Path) -> pd.DataFrame:
    """Read titles and genres; genres are joined with spaces."""
    movies = _read_fields(path, _MOVIE_FIELDS)
    repeated = movies["item_id"].duplicated().to_numpy(dtype=bool)
    if repeated.any():
        row = int(repeated.argmax())
        raise DataError(f"{path}:{row + 1}: movie {movies['item_id'].iloc[row]!r} occurs before; keep one of its lines")
    genres = movies["genres"].str.replace("|", " ", regex=False)
    return movies.assign(title=movies["title"].map(clean_text), genres=genres.map(clean_text))


def _read_fields(path: Path, names: tuple[str, ...]) -> pd.DataFrame:
    """Read a table whose fields are separated by `::`. The text is UTF-8, or else Latin-1, which any bytes are."""
    refuse_endless_lines(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check that it is a readable file") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    rows = [line.rstrip("\r").split(_SEPARATOR) for line in text.rstrip("\r\n").split("\n")]
    wrong = next((number for number, row in enumerate(rows, start=1) if len(row) != len(names)), None)
    if wrong is not None:
        raise DataError(
            f"{path}:{wrong}: {len(rows[wrong - 1])} fields instead of {len(names)} ({_SEPARATOR.join(names)}); use "
            "the file as published"
        )
    return pd.DataFrame(rows, columns=list(names), dtype="str")
