"""A prepared dataset in memory, and how it is loaded from its folder.

`hellm_recbole.data.atomic` describes the files of the folder.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hellm_recbole.data.columnar_copy import ColumnarCopy, read_copy
from hellm_recbole.data.columns import map_tokens, number_tokens
from hellm_recbole.data.feature_files import FEATURES, TOKENS, list_features, read_aligned_features, read_coverage
from hellm_recbole.data.item_texts import read_item_texts
from hellm_recbole.data.manifest import MANIFEST, Manifest, find_changed_files, read_manifest
from hellm_recbole.data.times import TIME, order_times
from hellm_recbole.data.tsv import Table, read_lines, read_table
from hellm_recbole.errors import DataError
from hellm_recbole.identity.parts import FeatureOrigin
from hellm_recbole.types import FloatArray, IdArray, TokenArray

PARTS = ("train", "valid", "test")
DROPPED = "dropped_items.txt"  # items that the k-core filter dropped; written only if there are any
IDS = ("user_id", "item_id")  # columns of NAME.inter
CACHE = ".cache"  # subfolder of a dataset: data that models derived from the dataset


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset. Ids are assigned in the order of first occurrence in `NAME.inter`.

    Attributes:
        name: name of the dataset.
        user_tokens: [U + 1] source token of each user id; entry 0 is "".
        item_tokens: [I + 1] source token of each item id; entry 0 is "".
        user: [E] user ids in file order.
        item: [E] item ids in file order.
        time: [E] numbers in the order of the times; equal times have equal numbers. They are the times themselves if
            these are small whole numbers, else the ranks of the times. None: a user's interactions are in file order.
        time_known: whether `time` comes from time stamps; False: it is only an order.
        part: [E] index in PARTS if the data has a split of its own, else None.
        features: modality -> [I + 1, D_m] float32 feature matrix in item-id order; row 0 is zero.
        k_core: k of the k-core filter that was applied; 0 means no filter.
        n_dropped: number of interactions that the filter dropped.
        paper: column of the HeLLM paper's Table 1 that shows this dataset, else None.
        cache: folder for data that is costly to derive from the dataset; None: nothing is cached.
        item_text: [I + 1] text of each item, entry 0 is ""; empty if the dataset has no texts.
        covered: modality -> [I + 1] whether the item has features of its own; other rows hold fill values. Entry 0 is
            False.
        feature_origins: modality -> encoder and text columns that made its features, where this is known.
        text_columns: columns that `item_text` was made from.
        n_dropped_users: number of users that the filter dropped; None if it is not known.
        item_columns: all columns of the table of items; empty if there is no table.
    """

    name: str
    user_tokens: TokenArray
    item_tokens: TokenArray
    user: IdArray
    item: IdArray
    time: npt.NDArray[np.float64] | None
    time_known: bool
    part: npt.NDArray[np.int8] | None
    features: Mapping[str, FloatArray]
    k_core: int
    n_dropped: int
    paper: str | None
    cache: Path | None = None
    item_text: tuple[str, ...] = ()
    covered: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    feature_origins: Mapping[str, FeatureOrigin] = field(default_factory=dict)
    text_columns: tuple[str, ...] = ()
    n_dropped_users: int | None = None
    item_columns: tuple[str, ...] = ()

    @property
    def n_users(self) -> int:
        """Number of users, U."""
        return len(self.user_tokens) - 1

    @property
    def n_items(self) -> int:
        """Number of items, I."""
        return len(self.item_tokens) - 1

    @property
    def n_interactions(self) -> int:
        """Number of interactions, E."""
        return len(self.user)


def load_dataset(folder: Path, *, modalities: Sequence[str] | None, verify: bool = True) -> Dataset:
    """Read a prepared dataset.

    Args:
        folder: folder of the dataset, `dataset/NAME`.
        modalities: modalities whose features are loaded; None loads all.
        verify: whether to refuse files that changed after they were prepared.

    Raises:
        DataError: a file is missing, changed or malformed, or two files do not fit together.
    """
    manifest = read_manifest(folder)
    before, after = manifest.counts.before, manifest.counts.after
    copy = read_copy(folder, manifest.name, manifest.files)
    columns = _parse_interactions(folder, manifest) if copy is None else copy.map_interactions()
    user_tokens, item_tokens = columns["user_tokens"], columns["item_tokens"]
    chosen = _choose_modalities(folder, manifest.name, modalities)
    dropped = set(read_lines(folder / DROPPED)) if (folder / DROPPED).is_file() else set()
    dataset = Dataset(
        name=manifest.name,
        user_tokens=user_tokens,
        item_tokens=item_tokens,
        user=columns["user"],
        item=columns["item"],
        time=columns.get("time"),
        time_known=manifest.time_known,
        part=columns.get("part"),
        features={name: _load_features(folder, copy, name, item_tokens, dropped) for name in chosen},
        k_core=manifest.k_core,
        n_dropped=before.interactions - after.interactions,
        paper=manifest.paper,
        cache=folder / CACHE,
        item_text=_load_texts(folder, manifest, item_tokens),
        covered={name: read_coverage(folder, name, item_tokens) for name in chosen},
        feature_origins={name: _get_feature_origin(manifest, name) for name in manifest.modalities},
        text_columns=manifest.text,
        n_dropped_users=before.users - (len(user_tokens) - 1),
        item_columns=_read_item_columns(folder / f"{manifest.name}.item"),
    )
    # This check comes last: an error about the content of a file is more helpful than "it has changed".
    if verify and (changed := find_changed_files(folder, manifest)):
        raise DataError(
            f"{folder / changed[0]} has changed since it was prepared, so results would not be comparable; "
            "prepare the dataset again with --fresh, or under another name"
        )
    if verify and copy is not None:
        copy.check_files()
    return dataset


def _parse_interactions(folder: Path, manifest: Manifest) -> dict[str, npt.NDArray[Any]]:
    """Read the table of interactions into arrays, named like the attributes of `Dataset`."""
    table = _read_interactions(folder, manifest)
    times = _read_times(table, manifest)
    user, user_tokens = _encode(table.frame["user_id"])
    item, item_tokens = _encode(table.frame["item_id"])
    columns: dict[str, npt.NDArray[Any]] = {"user": user, "item": item}
    if "split" in table.frame:
        columns["part"] = encode_parts(table)
    columns |= {"user_tokens": user_tokens, "item_tokens": item_tokens}
    del table
    columns["time"] = order_times(times)[0].astype(np.float64)
    return columns


def _load_features(
    folder: Path, copy: ColumnarCopy | None, modality: str, item_tokens: TokenArray, dropped: Collection[str]
) -> FloatArray:
    """Map the features of a modality from the copy if it has them, else read them; see `read_aligned_features`."""
    name = f"{modality}{FEATURES}"
    if copy is not None and name in copy.files and copy.fits(folder, name, f"{modality}{TOKENS}"):
        return copy.map_array(name.removesuffix(".npy"))
    return read_aligned_features(folder, modality, item_tokens, dropped)


def read_source_times(folder: Path) -> list[str]:
    """Read the times of a prepared dataset's interactions as the source states them.

    Returns:
        [E] times in file order, as text; positions if the source has no times.

    Raises:
        DataError: the dataset is not prepared, or a time is not a finite number.
    """
    manifest = read_manifest(folder)
    return _read_times(read_table(folder / f"{manifest.name}.inter", typed=True), manifest).tolist()


def _read_interactions(folder: Path, manifest: Manifest) -> Table:
    """Read the table of interactions.

    Raises:
        DataError: the table is malformed, or the manifest counts another number of interactions.
    """
    table = read_table(folder / f"{manifest.name}.inter", typed=True, categories=IDS)
    table.require(("user_id", "item_id", TIME), "prepare the dataset again with --fresh")
    expected = manifest.counts.after.interactions
    if len(table.frame) != expected:
        raise DataError(
            f"{table.path} has {len(table.frame)} interactions but {MANIFEST} counts {expected}; prepare the dataset "
            "again with --fresh"
        )
    return table


def _read_times(table: Table, manifest: Manifest) -> pd.Series[str]:
    """Return the [E] times of the source as text."""
    column = manifest.get_time_column()
    table.require((column,), "prepare the dataset again with --fresh")
    table.numbers(column)
    return table.frame[column]


def _choose_modalities(folder: Path, name: str, modalities: Sequence[str] | None) -> Sequence[str]:
    """Return the modalities to load: the given ones, or all that have features in the folder.

    Raises:
        DataError: a given modality has no features; the error names a similar one, or all.
    """
    available = list_features(folder)
    for modality in modalities or ():
        if modality not in available:
            matches = difflib.get_close_matches(modality, available, n=1)
            hint = f"did you mean {matches[0]!r}?" if matches else f"available: {', '.join(available) or 'none'}"
            raise DataError(f"dataset {name} has no modality {modality!r} in {folder}; {hint}")
    return available if modalities is None else modalities


def _load_texts(folder: Path, manifest: Manifest, item_tokens: TokenArray) -> tuple[str, ...]:
    """Load the [I + 1] item texts, "" for an item without text. The result is empty if the dataset has no texts."""
    path = folder / f"{manifest.name}.item"
    if not manifest.text or not path.is_file():
        return ()
    table = read_table(path, typed=True)
    return ("", *read_item_texts(table.frame, [str(token) for token in item_tokens[1:]], manifest.text, folder))


def _read_item_columns(path: Path) -> tuple[str, ...]:
    """Read the names of the columns of a table of items from its first line; there are none without a table."""
    if not path.is_file():
        return ()
    with path.open(encoding="utf-8", errors="replace") as file:  # a damaged file is reported by whoever reads its rows
        header = file.readline().rstrip("\r\n")
    return tuple(field.partition(":")[0] for field in header.split("\t") if field)


def _get_feature_origin(manifest: Manifest, modality: str) -> FeatureOrigin:
    """Return how the features of a modality were made, as the manifest states it.

    For features that were supplied as a file, the origin is not known.
    """
    about = manifest.modalities[modality]
    origin: FeatureOrigin = {
        "encoder": about.encoder,
        "revision": about.revision,
        "pooling": about.pooling,
        "columns": () if about.pooling is None else manifest.text,  # pictures are not pooled, and have no columns
    }
    if about.layer is not None:
        origin["encoding"] = {
            "layer": about.layer,
            "max_tokens": about.max_tokens,
            "dtype": about.weights_dtype,
            "weights": about.weights,
            "origin": about.origin,
            "text_sha256": about.text_sha256,
        }
    return origin


def encode_parts(table: Table) -> npt.NDArray[np.int8]:
    """Convert the column `split` of a table to indices in PARTS.

    Returns:
        [E] int8 part of each row.

    Raises:
        DataError: a field is not one of PARTS.
    """
    codes = map_tokens(table.frame["split"], {part: code for code, part in enumerate(PARTS)})
    bad_rows = np.flatnonzero(codes < 0)
    if len(bad_rows):
        row = int(bad_rows[0])
        raise DataError(
            f"{table.line(row)}: split is {table.frame['split'].iloc[row]!r}, but it must be one of {', '.join(PARTS)}"
        )
    return codes.astype(np.int8)


def _encode(column: pd.Series[str]) -> tuple[IdArray, TokenArray]:
    """Assign ids to the tokens of a column.

    Returns:
        [E] ids from 1, in the order of first occurrence; [n + 1] token of each id.
    """
    codes, tokens = number_tokens(column)
    return codes + 1, np.array(["", *tokens], dtype=np.str_)
