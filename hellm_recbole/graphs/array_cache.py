"""A cache of arrays that are expensive to compute, under a hash of all that they depend on."""

from __future__ import annotations

import functools
import hashlib
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.identity.code import digest_module
from hellm_recbole.system.files import (
    DIGEST_MISMATCH,
    append_checksum,
    atomic_write,
    ensure_folder,
    has_valid_checksum,
    remove_leftovers,
)
from hellm_recbole.types import FloatArray, IdArray

CacheFolder = Path | None


def load_or_compute(
    cache: CacheFolder, name: str, module: str, inputs: str, features: FloatArray, compute: Callable[[], IdArray]
) -> IdArray:
    """Load an array of ids from the cache, or compute and store it.

    If the folder is not writable, cached files are still read, and other arrays are computed in each run.

    Args:
        cache: folder of the cache; None uses no cache.
        name: what the array contains, the first part of the file's name and in messages.
        module: module that computes it; if its code changes, the array is computed again.
        inputs: all that it depends on besides code, features and the version of torch: settings and seed.
        features: [N, D] features that it is computed from.
        compute: function that computes it; the first axis has N entries.

    Raises:
        DataError: the file is broken.
    """
    if cache is None:
        return compute()
    digest = hashlib.sha256(
        f"{digest_module(module)} {torch.__version__} {inputs} {features.shape} {features.dtype}".encode()
    )
    digest.update(np.ascontiguousarray(features).data)
    path = cache / f"{name}-{digest.hexdigest()[:32]}.npz"
    if path.is_file():
        return _read(path, name, len(features))
    values = compute()
    try:
        remove_leftovers(ensure_folder(path.parent))
        with atomic_write(path, values.nbytes) as temporary:
            np.savez(temporary, values=values)
            append_checksum(temporary)
    except OutputError as error:
        _warn_not_cached(name, str(error).partition(";")[0])
    return values


def _read(path: Path, name: str, n_rows: int) -> IdArray:
    """Read the array of a cache file.

    Raises:
        DataError: the file is broken, or it has another number of rows.
    """
    try:
        if not has_valid_checksum(path):
            raise ValueError(DIGEST_MISMATCH)
        with np.load(path, allow_pickle=False) as stored:
            values: IdArray = stored["values"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"the cached {name} in {path} are broken ({error}); delete that file") from error
    if len(values) != n_rows:
        raise DataError(f"the cached {name} in {path} do not fit the features; delete that file")
    return values


@functools.cache
def _warn_not_cached(name: str, reason: str) -> None:
    """Print, once for each reason, that an array cannot be cached and is computed in each run."""
    print(f"warning: {name} cannot be cached, so that each run computes them: {reason}", file=sys.stderr)
