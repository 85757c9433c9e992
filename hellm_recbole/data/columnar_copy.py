"""The columnar copy of a prepared dataset: arrays in `NAME/columns/` that runs map into memory in place of parsing.

The atomic files are the dataset; the copy holds what reading them gives, and can be removed. It consists of `.npy`
files and of `columns.json`, which has their digests and those of the atomic files that they were made from. Mapped
pages are shared by all processes of a machine. Arrays can be written to: a changed page becomes the process' own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.errors import DataError
from hellm_recbole.system.files import check_seal, seal, sha256_file, write_text

COLUMNS = "columns"  # subfolder of a prepared dataset
INDEX = "columns.json"
VERSION = 1
ARRAYS = ("user", "item", "time", "part", "user_tokens", "item_tokens")  # attributes of `Dataset`
_ADVICE = f"remove the folder {COLUMNS}, and runs read the atomic files"


@dataclass(frozen=True)
class ColumnarCopy:
    """A columnar copy.

    Attributes:
        folder: folder of its files.
        made_from: atomic file -> SHA-256 of its content when the copy was made.
        files: file of the copy -> SHA-256.
        split: kind, hash and code of the stored split; empty if none is stored.
    """

    folder: Path
    made_from: Mapping[str, str]
    files: Mapping[str, str]
    split: Mapping[str, Any]

    def map_array(self, name: str) -> npt.NDArray[Any]:
        """Map an array into memory.

        Raises:
            DataError: the file is missing or damaged.
        """
        path = self.folder / f"{name}.npy"
        try:
            return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read: {error}; {_ADVICE}") from error

    def map_interactions(self) -> dict[str, npt.NDArray[Any]]:
        """Map the arrays of a `Dataset` that the table of interactions gives."""
        return {name: self.map_array(name) for name in ARRAYS if f"{name}.npy" in self.files}

    def check_files(self) -> None:
        """Check the digests of all files of the copy.

        Raises:
            DataError: a file is missing or has changed.
        """
        for name, digest in self.files.items():
            path = self.folder / name
            if not path.is_file() or sha256_file(path) != digest:
                raise DataError(f"{path} has changed since it was written; {_ADVICE}")

    def fits(self, folder: Path, *names: str) -> bool:
        """Return whether atomic files are those that the copy was made from."""
        return all(
            name in self.made_from and (folder / name).is_file() and sha256_file(folder / name) == self.made_from[name]
            for name in names
        )


def read_copy(folder: Path, name: str, prepared: Mapping[str, str]) -> ColumnarCopy | None:
    """Read the index of the copy of a prepared dataset.

    Args:
        folder: folder of the dataset.
        name: name of the dataset.
        prepared: file of the dataset -> SHA-256, as the manifest states them.

    Returns:
        The copy; None if there is none, or if the table of interactions has changed since it was prepared, which is
        said by whoever reads it.

    Raises:
        DataError: the index is damaged, or the copy was made from another table of interactions.
    """
    path = folder / COLUMNS / INDEX
    if not path.is_file():
        return None
    try:
        content = check_seal(json.loads(path.read_text(encoding="utf-8")))
        if content["version"] != VERSION:
            return None
        copy = ColumnarCopy(path.parent, content["made_from"], content["files"], content["split"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} has changed since it was written; {_ADVICE}") from error
    table = f"{name}.inter"
    if copy.fits(folder, table):
        return copy
    if (folder / table).is_file() and sha256_file(folder / table) == prepared.get(table):
        raise DataError(f"{folder / table} and the copy of it in {path.parent} are of different data; {_ADVICE}")
    return None


def remove_copy(folder: Path) -> None:
    """Remove the copy of a dataset, if there is one. No other process may read the folder."""
    shutil.rmtree(folder / COLUMNS, ignore_errors=True)


def add_split(copy: ColumnarCopy, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Add the arrays of a split to a copy, and what is said of the split to its index."""
    for name, array in arrays.items():
        np.save(copy.folder / f"{name}.npy", array)
    digests = {f"{name}.npy": sha256_file(copy.folder / f"{name}.npy") for name in arrays}
    write_index(copy.folder.parent, copy.made_from, {**copy.files, **digests}, about)


def is_mapped(array: npt.NDArray[Any] | None, path: Path) -> bool:
    """Return whether an array is the whole content of a mapped file."""
    base = None if array is None else array.base
    return isinstance(base, np.memmap) and base.shape == getattr(array, "shape", None) and _is_file(base, path)


def _is_file(array: Any, path: Path) -> bool:
    return array.filename is not None and os.path.abspath(array.filename) == os.path.abspath(path)


def write_index(folder: Path, made_from: Mapping[str, str], files: Mapping[str, str], split: Mapping[str, Any]) -> None:
    """Write the index of the copy in the folder of a dataset; see `ColumnarCopy`."""
    content = {"version": VERSION, "made_from": dict(made_from), "files": dict(files), "split": dict(split)}
    write_text(folder / COLUMNS / INDEX, json.dumps(seal(content), indent=2) + "\n")
