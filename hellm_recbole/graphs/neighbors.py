"""Nearest neighbours of items by the cosine of their features: exact in blocks, or approximate, kept in a cache."""

from __future__ import annotations

import functools
import hashlib
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from hellm_recbole.errors import DataError, MissingDependency, OutputError
from hellm_recbole.identity.code import digest_module
from hellm_recbole.system.files import (
    NOT_AS_WRITTEN,
    append_checksum,
    atomic_write,
    ensure_folder,
    has_valid_checksum,
    sweep_temporaries,
)
from hellm_recbole.types import FloatArray

IndexArray = npt.NDArray[np.int32]

BLOCK_BYTES = 64 << 20  # of similarities held at a time
_HNSW_LINKS, _HNSW_BUILD, _HNSW_SEARCH = 32, 200, 128  # graph degree, effort of building and of searching
_VERSION = 2  # of what is computed and how it is kept; part of the cache key


def find_nearest_neighbors(features: FloatArray, n_neighbors: int) -> tuple[IndexArray, FloatArray]:
    """The k rows with the largest cosine for each row, itself included, exactly.

    Similarities are computed a block of rows at a time; no [N, N] matrix is made. Equal similarities are ordered as
    `torch.topk` does.

    Args:
        features: [N, D]; a zero row has cosine 0 with everything.
        n_neighbors: k, at most N.

    Returns:
        [N, k] rows, best first, and [N, k] their cosines.
    """
    unit = F.normalize(torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)), dim=1)
    rows = min(len(unit), max(1, BLOCK_BYTES // (4 * len(unit))))
    similarity = unit.new_empty(rows, len(unit))  # one buffer: results between fresh ones would scatter the memory
    index, cosine = torch.empty(len(unit), n_neighbors, dtype=torch.int32), unit.new_empty(len(unit), n_neighbors)
    for start in range(0, len(unit), rows):
        here = slice(start, min(start + rows, len(unit)))
        block = torch.mm(unit[here], unit.T, out=similarity[: here.stop - start])
        cosine[here], index[here] = block.topk(n_neighbors, dim=1)
    return index.numpy(), cosine.numpy()


def find_approximate_neighbors(features: FloatArray, n_neighbors: int) -> tuple[IndexArray, FloatArray]:
    """As `find_nearest_neighbors`, by faiss's HNSW graph: a small part of the neighbours may be missed.

    Raises:
        MissingDependency: faiss is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency(
            "approximate neighbours need faiss; pip install faiss-cpu, or raise exact_knn_items to search exactly"
        ) from error
    unit = F.normalize(torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)), dim=1).numpy()
    graph = faiss.IndexHNSWFlat(unit.shape[1], _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = _HNSW_BUILD, max(_HNSW_SEARCH, 2 * n_neighbors)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # built by several threads it would differ from run to run
    graph.add(unit)
    faiss.omp_set_num_threads(threads)
    cosine, index = graph.search(unit, n_neighbors)
    return index.astype(np.int32), np.asarray(cosine, dtype=np.float32)


def find_item_neighbors(
    features: FloatArray, n_neighbors: int, exact_items: int, cache: Path | None
) -> tuple[IndexArray, FloatArray]:
    """Neighbours of each row of one modality, from the cache if they were computed before.

    Args:
        features: [N, D].
        n_neighbors: k, itself included.
        exact_items: up to this many rows the search is exact.
        cache: folder; the file's name is a hash of the features and of all that the search depends on. None: no cache.
            One that cannot be written to is read, and what it lacks is computed each time.

    Raises:
        DataError: there are fewer than k rows, or the cached file is broken.
        MissingDependency: the search is approximate and faiss is not installed.
    """
    if len(features) < n_neighbors:
        raise DataError(f"{n_neighbors} neighbours asked of {len(features)} items; lower n_neighbors")
    exact = len(features) <= exact_items
    search = find_nearest_neighbors if exact else find_approximate_neighbors
    if cache is None:
        return search(features, n_neighbors)
    path = cache / f"neighbors-{_key(features, n_neighbors, exact)}.npz"
    if path.is_file():
        return _read(path, len(features), n_neighbors)
    index, cosine = search(features, n_neighbors)
    try:
        _write(path, index, cosine)
    except OutputError as error:
        _warn_not_kept(str(error).partition(";")[0])
    return index, cosine


def _write(path: Path, index: IndexArray, cosine: FloatArray) -> None:
    sweep_temporaries(ensure_folder(path.parent))
    with atomic_write(path, index.nbytes + cosine.nbytes) as temporary:
        np.savez(temporary, index=index, cosine=cosine)
        append_checksum(temporary)


@functools.cache
def _warn_not_kept(reason: str) -> None:
    """Say once that neighbours are computed by each run, for they cannot be kept."""
    print(f"warning: item neighbours are not kept for other runs: {reason}", file=sys.stderr)


def _key(features: FloatArray, n_neighbors: int, exact: bool) -> str:
    digest = hashlib.sha256(
        f"{digest_module(__name__)} {features.shape} {features.dtype} {n_neighbors} {exact}".encode()
    )
    digest.update(np.ascontiguousarray(features).data)
    return digest.hexdigest()[:32]


def _read(path: Path, n_rows: int, n_neighbors: int) -> tuple[IndexArray, FloatArray]:
    try:
        if not has_valid_checksum(path):
            raise ValueError(NOT_AS_WRITTEN)
        with np.load(path, allow_pickle=False) as stored:
            index, cosine = stored["index"], stored["cosine"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cached neighbours {path} are broken ({error}); delete that file") from error
    if index.shape != (n_rows, n_neighbors) or cosine.shape != index.shape or index.max() >= n_rows:
        raise DataError(f"cached neighbours {path} do not fit the features; delete that file")
    return index, cosine
