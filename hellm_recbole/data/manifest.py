"""The manifest `dataset.json` of a prepared dataset: its entries, with their types, and how it is written and read.

A manifest is sealed with the SHA-256 of its content. Manifests of earlier versions have no seal and lack some entries;
these entries are optional here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hellm_recbole.config.schema import describe_fault
from hellm_recbole.data.times import TIME
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import check_seal, seal, sha256_file

SCHEMA = 1
MANIFEST = "dataset.json"

_TIES = re.compile(r"(.+)-ties(\d+)")  # name of a variant written by `prepare.py --shuffle-ties`

Names = Annotated[tuple[str, ...], Field(strict=False)]  # JSON has only lists


class _Entries(BaseModel):
    """A JSON object with known keys and exact types, which cannot be changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Return the entries that were given, as JSON values in the order of the class."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Counts(_Entries):
    """Numbers of users, items and interactions."""

    users: int
    items: int
    interactions: int


class FilterCounts(_Entries):
    """Counts before and after the k-core filter."""

    before: Counts
    after: Counts


class Modality(_Entries):
    """How the features of a modality were made, and what their file holds.

    Further entries, of features that another program has made, are kept and shown in the data card.

    Attributes:
        encoder: encoder that made the features; None for features of the source.
        revision: start of the hash of the encoder's files.
        pooling: pooling of token states.
        layer: number of the block of a causal language model whose token states were pooled.
        max_tokens: maximum number of tokens of a text that it read.
        weights_dtype: number type of its weights.
        weights: `pretrained`, or `random` and the seed.
        origin: what was done to its weights before, as for a GGUF file; None if nothing was.
        text_sha256: SHA-256 over the texts in the order of the items; only of further encodings.
        coverage: share of items with features of their own.
        fill: fill values of the other items.
        filled_with_mean: number of filled items; manifests of earlier versions have it in place of `missing`.
        missing: number of items without features of their own.
        dtype: data type of the file.
        rows: number of rows of the file.
        dim: number of columns of the file.
        sha256: SHA-256 of the file.
    """

    model_config = ConfigDict(extra="allow")

    encoder: str | None = None
    revision: str | None = None
    pooling: str | None = None
    layer: int | None = None
    max_tokens: int | None = None
    weights_dtype: str | None = None
    weights: str | None = None
    origin: str | None = None
    text_sha256: str | None = None
    coverage: float | None = None
    fill: str | None = None
    filled_with_mean: int | None = None
    missing: int | None = None
    dtype: str | None = None
    rows: int | None = None
    dim: int | None = None
    sha256: str | None = None


class Inputs(_Entries):
    """What a dataset was prepared from; the same inputs give the same dataset. See `DatasetSettings` for most keys.

    Attributes:
        source: file of the source -> SHA-256.
        shuffled_ties: seed of the order of ties; only in a variant of `prepare.py --shuffle-ties`.
        pictures_sha256: digest of the user's own pictures; only where they were encoded.
        parent_manifest: SHA-256 of the manifest of the dataset that a variant was made from.
    """

    kind: str | None = None
    k_core: int | None = None
    text: Names = ()
    columns: Names = ()
    encoder: str | None = None
    pooling: str | None = None
    image_encoder: str | None = Field(default=None, alias="image encoder")
    fill: str | None = None
    feature_dtype: str | None = None
    source: dict[str, str] = Field(default_factory=dict)
    pictures_sha256: str | None = None
    shuffled_ties: int | None = None
    parent_manifest: str | None = None


class SplitComparison(_Entries):
    """The split of the dataset, compared with the split that is stored for it; see `data/split_check.py`.

    Attributes:
        result: `same`, `same, with other user ids`, or `different`.
        sha256: hash of the split of the dataset.
        stored_sha256: hash of the stored split.
    """

    result: str
    sha256: str
    stored_sha256: str


class Manifest(_Entries):
    """Content of `dataset.json`. See `DatasetSettings` for the settings of the preparation.

    Attributes:
        version: version of the format; its key in the file is `schema`.
        name: name of the dataset.
        time_known: whether the source has times.
        warnings: sentences about dropped data and data warnings.
        inputs: what the dataset was prepared from.
        counts: size of the dataset before and after the filter.
        dropped_items: number of items that the filter dropped.
        split_comparison: comparison with the stored split; None if none is stored, and in earlier manifests.
        time_column: column of `NAME.inter` with the times of the source; None in manifests of earlier versions, when
            there was only `timestamp`.
        modalities: modality -> how its features were made.
        files: file of the dataset -> SHA-256.
    """

    version: int = Field(alias="schema")
    name: str
    kind: str
    k_core: int
    text: Names
    paper: str | None
    origin: str | None = None
    category: str | None = None
    columns: Names = ()
    pictures: bool = False
    time_known: bool
    warnings: Names
    inputs: Inputs = Inputs()
    counts: FilterCounts
    dropped_items: int | None = None
    split_comparison: SplitComparison | None = None
    time_column: str | None = None
    modalities: dict[str, Modality]
    files: dict[str, str]

    def get_time_column(self) -> str:
        """Return the column of `NAME.inter` that holds the times of the source."""
        return TIME if self.time_column is None else self.time_column


_REQUIRED = {field.alias or name for name, field in Manifest.model_fields.items() if field.is_required()}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a dataset, with the SHA-256 of its content.

    Args:
        folder: folder of the dataset; no other process may read it yet.
        manifest: content of the file; entries that were not given are left out.

    Raises:
        OSError: the file cannot be written.
    """
    (folder / MANIFEST).write_text(json.dumps(seal(manifest.to_json()), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a prepared dataset and check that every file it lists exists.

    Manifests of earlier versions have no checksum, so changes in them are not detected.

    Raises:
        DataError: the manifest is missing, unreadable, changed or of another version, or a listed file is missing.
    """
    path, advice = folder / MANIFEST, "prepare the dataset again with --fresh"
    if variant := _TIES.fullmatch(folder.name):
        advice = (
            f"remove the folder and make it again with hellm-recbole prepare {variant[1]} --shuffle-ties {variant[2]}"
        )
    if not path.is_file():
        raise DataError(
            f"{folder} holds no prepared dataset ({MANIFEST} is missing); run hellm-recbole prepare {folder.name}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON; {advice}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not set(content) >= _REQUIRED:
        raise DataError(f"{path} is not a manifest of version {SCHEMA}; {advice}")
    try:
        manifest = Manifest.model_validate(check_seal(content))
    except ValidationError as error:
        raise DataError(f"{path}: {describe_fault(error)}; {advice}") from error
    except ValueError as error:
        raise DataError(
            f"{path} has changed since it was prepared ({error}), so results would not be comparable; {advice}, and "
            "change settings by options of the command, not by editing the file"
        ) from error
    for name in manifest.files:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing; {advice}")
    return manifest


def find_changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """Find the prepared files that are missing or have changed; return their names in the manifest's order."""
    return [
        name
        for name, digest in manifest.files.items()
        if not (folder / name).is_file() or sha256_file(folder / name) != digest
    ]
