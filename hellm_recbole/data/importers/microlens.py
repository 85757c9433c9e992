"""Importer of MicroLens, as published for 50,000 and for 100,000 users.

`NAME_pairs.csv`      user,item,timestamp (or userID,videoID,timestamp), in milliseconds
`NAME_pairs.tsv`      user, a tab, and its items with spaces between them, oldest first; read if there is no .csv
`NAME_titles.csv`     item,title with a header (50k), or `NAME_title_en.csv` without a header (100k)
`NAME_covers/`        pictures named by items, such as 17.jpg
"""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.importers.assemble import assemble
from hellm_recbole.data.importers.ids import BLANKS
from hellm_recbole.data.importers.released import read_sequence_lines
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.text import clean_text
from hellm_recbole.data.tsv import read_lines, read_text
from hellm_recbole.errors import DataError

PAIRS = "{name}_pairs.csv", "{name}_pairs.tsv"
TITLES = "{name}_titles.csv", "{name}_title_en.csv"
COVERS = "{name}_covers"
# Names of the columns: those of the file, and those that its readme states.
_HEADERS = (["user", "item", "timestamp"], ["userID", "videoID", "timestamp"])
_TITLE_HEADER = ["item", "title"]


def read_microlens(source: Path, request: Request) -> AtomicData:
    """Read kind `microlens`: interactions, titles if there are any, and the folder of covers if there is one.

    Raises:
        DataError: a file is unreadable or of another format, or an item has two titles.
    """
    names = (request.name, *request.other_names)
    pairs = _find(source, PAIRS, names)
    if pairs is None:
        raise DataError(f"{source} holds no {PAIRS[0].format(name=request.name)}; copy it there as it is published")
    time_known = pairs.suffix == ".csv"
    inter = _read_pairs(pairs) if time_known else read_sequence_lines(pairs)
    files, items, item_types = [pairs], None, {}
    if (titles := _find(source, TITLES, names)) is not None:
        items = _read_titles(titles)
        item_types = {"item_id": "token", "title": "token_seq"}
        files.append(titles)
    covers = (source / COVERS.format(name=name) for name in names)
    folder = next((path for path in covers if path.is_dir()), None)
    data = assemble(source, inter, {}, items, item_types, time_known=time_known, rows=None, files=files)
    return replace(data, image_folder=folder)


def _find(source: Path, files: tuple[str, ...], names: tuple[str, ...]) -> Path | None:
    """Return the first file that exists, under one of the dataset's names."""
    paths = (source / file.format(name=name) for file in files for name in names)
    return next((path for path in paths if path.is_file()), None)


def _read_pairs(path: Path) -> pd.DataFrame:
    """Read user, item and time of each interaction."""
    lines = read_lines(path)
    header = lines[0].removeprefix("\ufeff").strip().split(",")
    if header not in _HEADERS:
        raise DataError(f"{path}:1: the header is {lines[0]!r}, not {','.join(_HEADERS[0])}; use the file as published")
    rows = [line.rstrip("\r").split(",") for line in lines[1:]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header) or not row[2].strip().lstrip("-").isdecimal():
            raise DataError(
                f"{path}:{number}: the line is not {','.join(header)} with a whole number as time; use the file as "
                "published"
            )
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"], dtype="str")
    return table.assign(**{name: table[name].str.strip(BLANKS) for name in table.columns})


def _read_titles(path: Path) -> pd.DataFrame:
    """Read the titles: CSV if the file has a header, else lines `item,title` whose titles may contain commas."""
    text = read_text(path).removeprefix("\ufeff")
    first, _, rest = text.partition("\n")
    if first.strip().split(",") == _TITLE_HEADER:
        rows = [(row[0], ",".join(row[1:])) for row in csv.reader(io.StringIO(rest)) if row]
        start = 2
    else:
        rows = [(line.partition(",")[0], line.partition(",")[2]) for line in text.split("\n") if line.strip()]
        start = 1
    table = pd.DataFrame(rows, columns=["item_id", "title"], dtype="str")
    table = table.assign(item_id=table["item_id"].str.strip(BLANKS), title=table["title"].map(clean_text))
    repeated = table["item_id"].duplicated().to_numpy(dtype=bool)
    if repeated.any():
        row = int(repeated.argmax())
        raise DataError(
            f"{path}: row {row + start}: item {table['item_id'].iloc[row]!r} occurs before; keep one of its titles"
        )
    return table
