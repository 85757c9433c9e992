"""Clean user and item ids: remove blanks around them, and drop columns that are only an index."""

from __future__ import annotations

import re
from collections.abc import Collection

import pandas as pd

BLANKS = " \t\n\r\x0b\x0c"
IDS = ("user_id", "item_id")
# Names that pandas gives to index columns.
_INDEX = re.compile(r"Unnamed: \d+(?:_level_\d+|\.\d+)*|__index_level_\d+__")


def strip_ids(frame: pd.DataFrame, where: str, columns: Collection[str] = IDS) -> tuple[pd.DataFrame, list[str]]:
    """Remove blanks around ids, and return the table and warnings.

    >>> strip_ids(pd.DataFrame({"user_id": ["u1 ", "u1"]}, dtype="str"), "Mine.csv")[1]
    ["Mine.csv: blanks around 1 field of user_id were removed, so that 'u1 ' is read as 'u1'"]

    Args:
        frame: table with every column as text.
        where: name of the file, for the warnings.
        columns: columns of ids; columns that the table does not have are ignored.
    """
    warnings = []
    for column in columns:
        if column not in frame:
            continue
        if isinstance(frame[column].dtype, pd.CategoricalDtype):
            tokens = pd.Series(frame[column].cat.categories)
            if tokens.str.strip(BLANKS).equals(tokens):
                continue  # the usual case, without a text for each row
            frame = frame.assign(**{column: frame[column].astype("str")})
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
    """Return the table without the index columns that pandas has written.

    >>> drop_index(pd.DataFrame(columns=["", "Unnamed: 0", "title", "__index_level_0__"])).columns.tolist()
    ['title']

    Args:
        frame: table as read; a first column without a name is an index too.
        kept: columns that are never dropped.
    """
    names = [str(name) for name in frame.columns]
    index = [bool(_INDEX.fullmatch(name)) or (name == "" and position == 0) for position, name in enumerate(names)]
    return frame.loc[:, [name in kept or not dropped for name, dropped in zip(names, index, strict=True)]]
