"""Interactions in a pandas frame become a prepared dataset, as a table in a file does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hellm_recbole.data.features import FindEncoder
from hellm_recbole.data.importers.sources import TABLE
from hellm_recbole.data.prepare import Prepared, prepare, read_dataset_settings, read_feature_settings
from hellm_recbole.errors import DataError, HellmError
from hellm_recbole.system.files import sha256_file

INTERACTIONS, ITEMS = "interactions.csv", "interactions_items.csv"  # the ending _items is that of the importer
USER, ITEM = "user_id", "item_id"
_DIGITS = 8  # first digits of the digest in the name of a frame without a name


def prepare_frame(
    interactions: pd.DataFrame,
    items: pd.DataFrame | None,
    *,
    name: str | None,
    text: Sequence[str],
    k_core: int | None,
    root: Path,
    fresh: bool,
    find: FindEncoder,
) -> Prepared:
    """Prepare a dataset from frames, exactly as `prepare.py --from table` does from files of the same content.

    Args:
        interactions: columns `user_id` and `item_id`, and perhaps `timestamp` and `split`. Without times, the rows of a
            user are in time order.
        items: column `item_id`, and columns of texts; None if there are no texts.
        name: name of the dataset; None makes one from the content, such as `frame-1a2b3c4d`.
        text: columns of `items` that become the text features.
        k_core: k of the filter on users and items; None takes the usual one (`properties/kinds.yaml`), 0 keeps all.
        root: folder of the prepared datasets.
        fresh: whether to replace a dataset of this name that was prepared from other data.
        find: function that finds the text encoders.

    Raises:
        DataError: a column is missing, a field is empty, or nothing is left after the filter; or a dataset of this name
            was prepared from other data.
    """
    if text and items is None:
        raise DataError(f"text = {list(text)} names columns of a table of items, but there is none; give items=FRAME")
    with tempfile.TemporaryDirectory(prefix="hellm-recbole-") as folder:
        source = Path(folder) / INTERACTIONS
        _write_table(interactions, source, (USER, ITEM), "the interactions")
        if items is not None:
            _write_table(items, source.with_name(ITEMS), (ITEM,), "the items")
        name = name or f"frame-{_digest_files(source)}"
        given = {"text": tuple(text), "k_core": k_core}
        settings = read_dataset_settings(name, TABLE, {key: value for key, value in given.items() if value is not None})
        features = read_feature_settings({})
        try:
            prepared = prepare(name, source, settings, features, root, fresh=fresh, progress=False, find=find)
        except HellmError as error:
            raise type(error)(_name_frames(str(error), source)) from error
        return replace(prepared, warnings=tuple(_name_frames(one, source) for one in prepared.warnings))


def _name_frames(message: str, source: Path) -> str:
    """Return a message with the frames in place of the files that they were written into.

    Args:
        message: message of the preparation.
        source: file of the interactions.
    """
    for file, frame in ((INTERACTIONS, "the frame of interactions"), (ITEMS, "the frame of items")):
        message = message.replace(str(source.with_name(file)), frame).replace(file, frame)
    return message.replace(str(source.parent), "the frame")


def _digest_files(source: Path) -> str:
    """Return the first digits of the SHA-256 of the tables."""
    paths = (source, source.with_name(ITEMS))
    return "".join(sha256_file(path)[:_DIGITS] for path in paths if path.exists())[: 2 * _DIGITS]


def _write_table(frame: pd.DataFrame, path: Path, ids: Sequence[str], what: str) -> None:
    """Write a frame as CSV. Ids are written as text, and lists of texts are joined with `, `.

    Raises:
        DataError: a column of ids is missing, or an id is.
    """
    if repeated := [*map(str, frame.columns[frame.columns.duplicated()])]:
        raise DataError(f"{what} have two columns {repeated[0]!r}; keep one of them")
    for column in ids:
        if column not in frame:
            raise DataError(
                f"{what} have no column {column!r} among {', '.join(map(str, frame.columns))}; rename the column"
            )
        if frame[column].isna().any():
            row = frame.index[frame[column].isna()].tolist()[0]  # a number of Python's, which is printed as one
            raise DataError(f"{what} have no {column} in row {row!r}; give every row a value")
    written = frame.copy()
    for name in frame.columns:
        written[name] = _format_column(frame[name], is_id=name in ids)
    written.to_csv(path, index=False)


def _format_column(column: pd.Series, *, is_id: bool) -> pd.Series:
    """Format a column for CSV: float ids that are whole numbers lose their `.0`, and lists become texts."""
    if is_id and pd.api.types.is_float_dtype(column) and (column % 1 == 0).all():
        return column.astype("int64")
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.map(lambda time: time.isoformat())
    if column.dtype == object:
        return column.map(lambda value: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value)
    return column
