"""The split of a prepared dataset, stored in its columnar copy, so that a run neither sorts nor hashes interactions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.columnar_copy import ARRAYS, COLUMNS, add_split, is_mapped, read_copy, remove_copy, write_index
from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.feature_files import FEATURES, TOKENS
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import DataError
from hellm_recbole.identity.code import digest_module
from hellm_recbole.system.files import sha256_file
from hellm_recbole.types import Histories, Targets

_CODE = tuple(f"hellm_recbole.{name}" for name in ("data.split", "data.split_hash", "data.text_rows", "types"))


def store_columns(folder: Path) -> None:
    """Write the columnar copy of a prepared dataset, with its split. No other process may read the folder.

    Raises:
        DataError: a file of the dataset is malformed; a dataset whose features do not fit gets no copy of these.
        OSError: a file cannot be written.
    """
    manifest = read_manifest(folder)
    remove_copy(folder)
    try:
        dataset = load_dataset(folder, modalities=tuple(manifest.modalities), verify=False)
    except DataError:  # raised again if features are not its cause
        dataset = load_dataset(folder, modalities=(), verify=False)
    _write_copy(folder, dataset, {name: about.dtype != "float32" for name, about in manifest.modalities.items()})


def _write_copy(folder: Path, dataset: Dataset, halves: Mapping[str, bool]) -> None:
    """Write the copy of a dataset that was read from its atomic files. No other process may read the folder.

    Args:
        folder: folder of the dataset.
        dataset: the dataset with all features.
        halves: modality -> whether its file holds float16; these are not copied, because they are read as float32.
    """
    (folder / COLUMNS).mkdir()
    made_from = [f"{dataset.name}.inter"]
    arrays: dict[str, npt.NDArray[Any]] = {
        name: array for name in ARRAYS if (array := getattr(dataset, name)) is not None
    }
    for modality, matrix in dataset.features.items():
        if not halves[modality]:
            arrays[f"{modality}{FEATURES}".removesuffix(".npy")] = matrix
            made_from += [f"{modality}{FEATURES}", f"{modality}{TOKENS}"]
    for name, array in arrays.items():
        np.save(folder / COLUMNS / f"{name}.npy", array)
    digests = {f"{name}.npy": sha256_file(folder / COLUMNS / f"{name}.npy") for name in arrays}
    write_index(folder, {name: sha256_file(folder / name) for name in made_from}, digests, {})


def store_split(folder: Path, split: Split) -> None:
    """Add the split of a prepared dataset, as `split_dataset` makes it, to its columnar copy."""
    manifest = read_manifest(folder)
    copy = read_copy(folder, manifest.name, manifest.files)
    if copy is None:
        return
    arrays = {
        "train_indptr": split.train.indptr,
        "train_items": split.train.items,
        "valid_user": split.valid.user,
        "valid_item": split.valid.item,
        "test_user": split.test.user,
        "test_item": split.test.item,
    }
    about = {
        "kind": split.kind,
        "sha256": split.sha256,
        "n_interactions": split.n_interactions,
        "n_short_users": split.n_short_users,
        "code": _digest_code(),
    }
    add_split(copy, arrays, about)


def split_prepared(dataset: Dataset, folder: Path) -> Split:
    """Return the split of `split_dataset`, from the columnar copy if the dataset was loaded from it unchanged.

    A split that other code has made is not taken.

    Args:
        dataset: the dataset.
        folder: folder of the prepared dataset.

    Raises:
        DataError: a part has no interaction, or the copy is damaged.
    """
    mapped = [
        is_mapped(array, folder / COLUMNS / f"{name}.npy")
        for name, array in vars(dataset).items()
        if name in ("user", "item", "user_tokens", "item_tokens") or (name in ("time", "part") and array is not None)
    ]
    if not all(mapped):
        return split_dataset(dataset)
    manifest = read_manifest(folder)
    copy = read_copy(folder, manifest.name, manifest.files)
    if copy is None or copy.split.get("code") != _digest_code():
        return split_dataset(dataset)
    about, has_parts = copy.split, "part.npy" in copy.files
    if has_parts != (dataset.part is not None) or ("time.npy" in copy.files) != (dataset.time is not None):
        return split_dataset(dataset)
    arrays = {
        name: copy.map_array(name)
        for name in ("train_indptr", "train_items", "valid_user", "valid_item", "test_user", "test_item")
    }
    return Split(
        dataset=dataset.name,
        kind=about["kind"],
        user_tokens=dataset.user_tokens,
        item_tokens=dataset.item_tokens,
        train=Histories(arrays["train_indptr"], arrays["train_items"]),
        valid=Targets(arrays["valid_user"], arrays["valid_item"]),
        test=Targets(arrays["test_user"], arrays["test_item"]),
        features=dataset.features,
        sha256=about["sha256"],
        n_interactions=about["n_interactions"],
        n_short_users=about["n_short_users"],
        cache=dataset.cache,
        item_text=dataset.item_text,
        covered=dataset.covered,
        feature_origins=dataset.feature_origins,
        text_columns=dataset.text_columns,
    )


def _digest_code() -> dict[str, str]:
    """Return the digests of the modules that make a split."""
    return {name: digest_module(name) for name in _CODE}
