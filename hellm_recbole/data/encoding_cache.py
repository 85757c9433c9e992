"""Cache of encodings on disk, so that nothing is encoded twice and an encoding that was stopped can be resumed.

Encodings are cached in blocks, under a hash of the inputs and of the encoder's files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hellm_recbole.data.encoding_blocks import HERE, Block, Encoding, FoundEncoder, list_cached, list_missing
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import (
    DIGEST_MISMATCH,
    append_checksum,
    atomic_write,
    ensure_folder,
    has_valid_checksum,
    remove_leftovers,
)
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.system.work_bar import WorkBar
from hellm_recbole.types import FloatArray

LAYOUT = 2  # version of the cache layout; part of the cache keys


@dataclass(frozen=True)
class Speed:
    """Amount and duration of encoding.

    Attributes:
        n_encoded: number of different texts or pictures that were encoded; 0 if all came from the cache.
        seconds: duration in seconds, including the loading of the encoder.
    """

    n_encoded: int
    seconds: float


def encode_with_cache(
    inputs: Sequence[Any],
    found: FoundEncoder,
    folder: Path,
    *,
    progress: bool,
    unit: str,
    encoding: Encoding = HERE,
) -> tuple[FloatArray, Speed]:
    """Encode `inputs`, or read their encodings from the cache.

    Encodings are written to `folder` block by block, and blocks that exist are read. When all exist, they become one
    file, `<folder>.npy`.

    Args:
        inputs: [n] texts or picture files.
        found: the encoder; it is loaded only if something must be encoded.
        folder: folder of the blocks.
        progress: whether to show a progress bar.
        unit: name of an input on the progress bar.
        encoding: where blocks are encoded.

    Returns:
        [n, D] encodings; amount and duration of encoding.
    """
    complete = folder.with_name(f"{folder.name}.npy")
    started = time.perf_counter()
    if complete.is_file():
        return _read_cache(complete, len(inputs)), Speed(0, time.perf_counter() - started)
    with FolderLock(folder, f"the cache of encodings {folder}"):
        if complete.is_file():  # another process has written it meanwhile
            return _read_cache(complete, len(inputs)), Speed(0, time.perf_counter() - started)
        remove_leftovers(folder.parent)
        rows, n_encoded = _encode_blocks(inputs, found, ensure_folder(folder), encoding, progress=progress, unit=unit)
        _write_cache(complete, rows)
        shutil.rmtree(folder)
    return rows, Speed(n_encoded, time.perf_counter() - started)


def _encode_blocks(
    inputs: Sequence[Any], found: FoundEncoder, folder: Path, encoding: Encoding, *, progress: bool, unit: str
) -> tuple[FloatArray, int]:
    """Encode the blocks of `inputs` that are not in `folder`, and read the others.

    Returns:
        [n, D] encodings; number of inputs that were encoded now.
    """
    remove_leftovers(folder)
    cached = list_cached([path.name for path in folder.iterdir()])
    missing = list_missing(len(inputs), cached, found.part, encoding.largest)
    rows: dict[Block, FloatArray] = {}
    n_encoded = 0
    with WorkBar("encoding", len(inputs), f"{unit}s", shown=progress) as bar:
        for block in cached:
            rows[block] = _read_cache(folder / block.file_name, block.stop - block.start)
            bar.update(block.stop - block.start)
        pieces = [inputs[block.start : block.stop] for block in missing]
        for block, encoded in encoding.encode_blocks(missing, pieces, found) if missing else ():
            _write_cache(folder / block.file_name, encoded)
            rows[block] = encoded
            n_encoded += len(encoded)
            bar.update(len(encoded))
    return np.concatenate([rows[block] for block in sorted(rows)]), n_encoded


def _write_cache(path: Path, rows: FloatArray) -> None:
    with atomic_write(path, rows.nbytes) as temporary:
        np.save(temporary, rows)
        append_checksum(temporary)


def _read_cache(path: Path, n_rows: int) -> FloatArray:
    try:
        if not has_valid_checksum(path):
            raise ValueError(DIGEST_MISMATCH)
        encoded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the file of cached encodings {path} is broken ({error}); delete that file") from error
    if encoded.ndim != 2 or len(encoded) != n_rows or encoded.dtype != np.float32:
        raise DataError(f"the cached encodings in {path} do not fit the inputs; delete that file")
    return np.asarray(encoded, dtype=np.float32)


def compute_hash(content: Any) -> str:
    """Compute a short hash of JSON content, such as a cache key."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
