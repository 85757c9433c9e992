"""Ids as they stand in a source, without the blanks around them, and columns that are no data."""

from __future__ import annotations

import re
from collections.abc import Collection

import pandas as pd

BLANKS = " \t\n\r\x0b\x0c"
IDS = ("user_id", "item_id")
_INDEX = re.compile(r"Unnamed: \d+(?:_level_\d+|\.\d+)*|__index_level_\d+__")  # names that pandas gives to an index


def strip_ids(frame: pd.DataFrame, where: str, columns: Collection[str] = IDS) -> tuple[pd.DataFrame, list[str]]:
    """Ids without blanks around them, and what there is to warn of.

    >>> strip_ids(pd.DataFrame({"user_id": ["u1 ", "u1"]}, dtype="str"), "Mine.csv")[1]
    ["Mine.csv: blanks around 1 field of user_id were removed, so that 'u1 ' is read as 'u1'"]

    Args:
        frame: every column as text; those of `columns` that it lacks are passed over.
        where: name of the file, for the warning.
        columns: columns of ids.
    """
    warnings = []
    for column in columns:
        if column not in frame:
            continue
        stripped = frame[column].str.strip(BLANKS)
        padded = frame[column][(stripped != frame[column]).to_numpy(dtype=bool)]
        if len(padded):
            first = str(padded.iloc[0])
            warnings.append(
                f"{where}: blanks around {len(padded):,} field{'s' * (len(padded) > 1)} of {column} were removed, so "
                f"that {first!r} is read as {first.strip(BLANKS)!r}"
            )
            frame = frame.assign(**{column: stripped})
    return frame, warnings


def drop_index(frame: pd.DataFrame, kept: Collection[str] = ()) -> pd.DataFrame:
    """The table without the columns that pandas writes for the index of its rows.

    >>> drop_index(pd.DataFrame(columns=["", "Unnamed: 0", "title", "__index_level_0__"])).columns.tolist()
    ['title']

    Args:
        frame: a table as read; an index without a name is its first column, and that column has no name.
        kept: columns that are kept whatever their names are.
    """
    names = [str(name) for name in frame.columns]
    index = [bool(_INDEX.fullmatch(name)) or (name == "" and place == 0) for place, name in enumerate(names)]
    return frame.loc[:, [name in kept or not dropped for name, dropped in zip(names, index, strict=True)]]
