"""Write a dataset in RecBole's atomic files, with feature matrices and a manifest.

A prepared dataset is the folder `dataset/NAME/` with these files:

- `NAME.inter` and `NAME.item`: RecBole's tables of interactions and items. The column `timestamp` of `NAME.inter` holds
  numbers that RecBole can represent. If these differ from the times of the source, the column `source_time` holds
  the times of the source.
- `<modality>_feat.npy` and its token files for each modality, see `hellm_recbole.data.feature_files`.
- `SHA256SUMS`: checksums for `sha256sum -c`.
- `dataset.json`: the manifest, see `hellm_recbole.data.manifest`. It is written last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from hellm_recbole.data.columns import write_rows
from hellm_recbole.data.dataset import DROPPED
from hellm_recbole.data.feature_files import FEATURES, MISSING, TOKENS, FeatureMatrix
from hellm_recbole.data.manifest import Counts, Manifest, Modality, write_manifest
from hellm_recbole.data.times import SOURCE_TIME, TIME, fit_times
from hellm_recbole.errors import OutputError
from hellm_recbole.system.disk import describe_full, is_full
from hellm_recbole.system.files import SUMS, sha256_file


@dataclass(frozen=True)
class AtomicData:
    """Result of an importer: tables of text, as they will be written.

    Attributes:
        inter: table with user_id, item_id and timestamp; `split` and other columns are optional.
        inter_types: column of `inter` -> atomic type.
        items: table with item_id and text columns, or None.
        item_types: column of `items` -> atomic type.
        features: modality -> features of items of `inter`; rows that are missing here are filled later.
        time_known: whether `timestamp` comes from time stamps; False: it is only an order.
        files: source files that were read.
        warnings: sentences for the manifest about dropped data and data warnings.
        image_urls: item -> addresses of its pictures, best first; empty if the source has no pictures.
        image_files: item -> file of its picture, which need not exist; empty if the source names no files.
        image_folder: folder with pictures named by item ids; None if the source has none.
        ordered: whether the source gives the order of a user's interactions, by times or by positions.
    """

    inter: pd.DataFrame
    inter_types: Mapping[str, str]
    items: pd.DataFrame | None
    item_types: Mapping[str, str]
    features: Mapping[str, FeatureMatrix]
    time_known: bool
    files: Sequence[Path]
    warnings: Sequence[str]
    image_urls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    image_files: Mapping[str, Path] = field(default_factory=dict)
    image_folder: Path | None = None
    ordered: bool = False

    def item_ids(self) -> list[str]:
        """Return the items of the interactions, in the order of first occurrence."""
        return [str(token) for token in self.inter["item_id"].unique()]

    def counts(self) -> Counts:
        """Count users, items and interactions."""
        return Counts(
            users=int(self.inter["user_id"].nunique()),
            items=int(self.inter["item_id"].nunique()),
            interactions=len(self.inter),
        )


def write_dataset(
    folder: Path,
    data: AtomicData,
    features: Mapping[str, FeatureMatrix],
    manifest: Manifest,
    dropped_items: Sequence[str] = (),
) -> None:
    """Write atomic files, features and the manifest into an existing folder. The manifest is written last.

    No other process may read the folder meanwhile. `NAME.item` and the features contain only items with interactions.

    Args:
        folder: folder to write to.
        data: filtered tables.
        features: modality -> features of all items of `data.inter`; further items are allowed.
        manifest: entries about source and filter; this function adds those about the files.
        dropped_items: items that the filter dropped.

    Raises:
        OutputError: a file cannot be written.
    """
    try:
        inter = fit_times(data.inter)
        _write_tables(folder, manifest.name, data, inter)
        modalities = {
            modality: write_features(folder, modality, matrix.select_items(data.item_ids()))
            for modality, matrix in features.items()
        }
        if dropped_items:
            _write_tokens(folder / DROPPED, dropped_items)
        digests = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        (folder / SUMS).write_text("".join(f"{digest}  {file}\n" for file, digest in digests.items()), "utf-8")
        about_files = {
            "dropped_items": len(dropped_items),
            "time_column": SOURCE_TIME if inter is not data.inter else TIME,
            "modalities": modalities,
            "files": digests,
        }
        write_manifest(folder, manifest.model_copy(update=about_files))
    except OSError as error:
        if is_full(error):
            reason = describe_full(error, folder, _estimate_bytes(data, features))
        else:
            reason = f"{error.strerror or error}; check the folder's permissions, or choose another --output"
        raise OutputError(f"cannot write dataset {manifest.name} to {folder}: {reason}") from error


def _write_tables(folder: Path, name: str, data: AtomicData, inter: pd.DataFrame) -> None:
    """Write the table of interactions, with the times in `inter`, and the table of their items."""
    _write_table(folder / f"{name}.inter", inter, {**data.inter_types, SOURCE_TIME: "float"})
    if data.items is not None:
        item_table = data.items[data.items["item_id"].isin(data.item_ids())]
        _write_table(folder / f"{name}.item", item_table, data.item_types)


def write_features(folder: Path, modality: str, matrix: FeatureMatrix) -> Modality:
    """Write the feature matrix of all items into a folder, and return its entry in the manifest."""
    path, dtype = folder / f"{modality}{FEATURES}", np.dtype(np.float16 if matrix.half else np.float32)
    np.save(path, matrix.values.astype(dtype, copy=False))
    _write_tokens(folder / f"{modality}{TOKENS}", matrix.tokens)
    if missing := sorted(set(matrix.missing) & set(matrix.tokens)):
        _write_tokens(folder / f"{modality}{MISSING}", missing)
    return Modality(
        **matrix.about,
        missing=len(missing),
        dtype=dtype.name,
        rows=len(matrix.tokens),
        dim=int(matrix.values.shape[1]),
        sha256=sha256_file(path),
    )


def _estimate_bytes(data: AtomicData, features: Mapping[str, FeatureMatrix]) -> int:
    """Estimate the size of a dataset's files in bytes. Each character of a text counts as one byte."""
    frames = [frame for frame in (data.inter, data.items) if frame is not None]
    table_bytes = sum(int(frame[column].str.len().sum()) + len(frame) for frame in frames for column in frame.columns)
    bytes_per_item = sum((2 if matrix.half else 4) * int(matrix.values.shape[1]) for matrix in features.values())
    return table_bytes + len(data.item_ids()) * bytes_per_item


def _write_tokens(path: Path, tokens: Iterable[str]) -> None:
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def _write_table(path: Path, frame: pd.DataFrame, types: Mapping[str, str]) -> None:
    """Write a tab-separated table. Nothing is quoted, because importers remove tabs and quotes from the fields."""
    with path.open("wb") as stream:
        stream.write(("\t".join(f"{column}:{types[column]}" for column in frame.columns) + "\n").encode())
        write_rows(stream, [frame[column] for column in frame.columns])
