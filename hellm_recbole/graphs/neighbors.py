"""Nearest neighbours of items by the cosine of their features, searched exactly or approximately, with a cache."""

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
from pydantic import Field

from hellm_recbole.config.settings import Settings
from hellm_recbole.errors import DataError, MissingDependency, OutputError
from hellm_recbole.identity.code import digest_module
from hellm_recbole.system.files import (
    DIGEST_MISMATCH,
    append_checksum,
    atomic_write,
    ensure_folder,
    has_valid_checksum,
    remove_leftovers,
)
from hellm_recbole.types import BoolArray, FloatArray, IdArray

IndexArray = npt.NDArray[np.int32]

BLOCK_BYTES = 64 << 20  # size of the similarities in memory at one time


class NeighborSearchSettings(Settings):
    """How a model searches the neighbours of items.

    Attributes:
        exact_knn_items: up to this many items neighbours are searched exactly, above it approximately.
        hnsw_links: approximate search: links of each node of the HNSW graph (M of its paper).
        hnsw_build_effort: approximate search: candidates kept while the graph is built (efConstruction).
        hnsw_search_effort: approximate search: candidates kept while it is searched (efSearch); at least twice the
            number of neighbours is used.
    """

    exact_knn_items: int = Field(ge=0)
    hnsw_links: int = Field(ge=2)
    hnsw_build_effort: int = Field(ge=1)
    hnsw_search_effort: int = Field(ge=1)


def find_nearest_neighbors(features: FloatArray, n_neighbors: int) -> tuple[IndexArray, FloatArray]:
    """Find exactly the k rows with the largest cosine for each row; a row is a neighbour of itself.

    Similarities are computed for one block of rows at a time, never as an [N, N] matrix. Equal similarities are in the
    order of `torch.topk`.

    Args:
        features: [N, D] feature vectors; a zero row has cosine 0 with every row.
        n_neighbors: k, at most N.

    Returns:
        [N, k] row numbers of the neighbours, nearest first, and [N, k] cosines.
    """
    unit = F.normalize(torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)), dim=1)
    block_rows = min(len(unit), max(1, BLOCK_BYTES // (4 * len(unit))))
    similarity = unit.new_empty(block_rows, len(unit))  # one buffer for all blocks, so that memory is not fragmented
    index, cosine = torch.empty(len(unit), n_neighbors, dtype=torch.int32), unit.new_empty(len(unit), n_neighbors)
    for start in range(0, len(unit), block_rows):
        rows = slice(start, min(start + block_rows, len(unit)))
        block = torch.mm(unit[rows], unit.T, out=similarity[: rows.stop - start])
        cosine[rows], index[rows] = block.topk(n_neighbors, dim=1)
    return index.numpy(), cosine.numpy()


def find_approximate_neighbors(
    features: FloatArray, n_neighbors: int, settings: NeighborSearchSettings
) -> tuple[IndexArray, FloatArray]:
    """Find the neighbours of each row approximately, with an HNSW graph of faiss.

    Arguments and results are those of `find_nearest_neighbors`. A small part of the true neighbours may be missing.

    Raises:
        MissingDependency: faiss is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency(
            "the approximate search for item neighbours needs the package faiss, which is not installed; "
            "run pip install faiss-cpu, or raise the setting exact_knn_items to search exactly"
        ) from error
    unit = F.normalize(torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)), dim=1).numpy()
    graph = faiss.IndexHNSWFlat(unit.shape[1], settings.hnsw_links, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = settings.hnsw_build_effort
    graph.hnsw.efSearch = max(settings.hnsw_search_effort, 2 * n_neighbors)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # several threads build a different graph in each run
    graph.add(unit)
    faiss.omp_set_num_threads(threads)
    cosine, index = graph.search(unit, n_neighbors)
    return index.astype(np.int32), np.asarray(cosine, dtype=np.float32)


def find_item_neighbors(
    features: FloatArray,
    n_neighbors: int,
    settings: NeighborSearchSettings,
    cache: Path | None,
    covered: BoolArray | None = None,
    modality: str = "",
) -> tuple[IndexArray, FloatArray]:
    """Find the neighbours of each item in one modality, or read them from the cache.

    Args:
        features: [N, D] features of the N items.
        n_neighbors: k; an item is a neighbour of itself.
        settings: settings of the search.
        cache: folder of the cache; None uses no cache. The name of a cache file is a hash of the features and of
            everything else that the result depends on. If the folder is not writable, cached files are still read,
            and other results are computed in each run.
        covered: [N] whether an item takes part; None if all do. The others have no neighbours and are nobody's. Only
            the rows that take part are searched, hashed and cached, in a numbering of their own.
        modality: name of the modality, for messages.

    Returns:
        [n, k] neighbours of the n items that take part, nearest first, numbered from 0 among all N; [n, k] cosines.

    Raises:
        DataError: fewer than k items take part, or the cache file is broken.
        MissingDependency: the search is approximate and faiss is not installed.
    """
    if covered is not None:
        members = np.flatnonzero(covered).astype(np.int32)
        index, cosine = find_item_neighbors(features[members], n_neighbors, settings, cache, modality=modality)
        return members[index], cosine
    if len(features) < n_neighbors:
        there_are = "there is only 1 item" if len(features) == 1 else f"there are only {len(features)} items"
        raise DataError(
            f"n_neighbors is {n_neighbors}, but {there_are} with features{modality and f' of modality {modality}'}; "
            "lower the setting n_neighbors"
        )
    exact = len(features) <= settings.exact_knn_items

    def search() -> tuple[IndexArray, FloatArray]:
        if exact:
            return find_nearest_neighbors(features, n_neighbors)
        return find_approximate_neighbors(features, n_neighbors, settings)

    if cache is None:
        return search()
    path = cache / f"neighbors-{_compute_key(features, n_neighbors, None if exact else settings)}.npz"
    if path.is_file():
        return _read_cache(path, len(features), n_neighbors)
    index, cosine = search()
    try:
        _write_cache(path, index, cosine)
    except OutputError as error:
        _warn_not_cached(str(error).partition(";")[0])
    return index, cosine


def list_neighbor_edges(index: IndexArray, covered: BoolArray | None = None) -> tuple[IdArray, IdArray]:
    """List the edges from items to their neighbours, in row-major order.

    Args:
        index: [n, k] neighbours from `find_item_neighbors`, numbered from 0.
        covered: [I] whether an item has neighbours, as in `find_item_neighbors`; None if all have.

    Returns:
        [n k] ids (from 1) of the items, and [n k] ids of their neighbours.

    >>> list_neighbor_edges(np.array([[0, 2], [2, 0]]), np.array([True, False, True]))[0].tolist()
    [1, 1, 3, 3]
    """
    members = np.arange(len(index)) if covered is None else np.flatnonzero(covered)
    return np.repeat(members + 1, index.shape[1]), index.ravel().astype(np.int64) + 1


def _write_cache(path: Path, index: IndexArray, cosine: FloatArray) -> None:
    """Write [N, k] neighbours and cosines with a checksum."""
    remove_leftovers(ensure_folder(path.parent))
    with atomic_write(path, index.nbytes + cosine.nbytes) as temporary:
        np.savez(temporary, index=index, cosine=cosine)
        append_checksum(temporary)


@functools.cache
def _warn_not_cached(reason: str) -> None:
    """Print, once for each reason, that neighbours cannot be cached and are computed in each run."""
    print(f"warning: item neighbours cannot be cached, so that each run computes them: {reason}", file=sys.stderr)


def _compute_key(features: FloatArray, n_neighbors: int, approximate: NeighborSearchSettings | None) -> str:
    """Compute the name of a cache entry, 32 hexadecimal digits; `approximate` is None for an exact search."""
    efforts = None
    if approximate is not None:
        efforts = (approximate.hnsw_links, approximate.hnsw_build_effort, approximate.hnsw_search_effort)
    digest = hashlib.sha256(
        f"{digest_module(__name__)} {features.shape} {features.dtype} {n_neighbors} {efforts}".encode()
    )
    digest.update(np.ascontiguousarray(features).data)
    return digest.hexdigest()[:32]


def _read_cache(path: Path, n_rows: int, n_neighbors: int) -> tuple[IndexArray, FloatArray]:
    """Read [n_rows, n_neighbors] neighbours and cosines.

    Raises:
        DataError: the file is broken, or its shape is wrong.
    """
    try:
        if not has_valid_checksum(path):
            raise ValueError(DIGEST_MISMATCH)
        with np.load(path, allow_pickle=False) as stored:
            index, cosine = stored["index"], stored["cosine"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"the cached item neighbours in {path} are broken ({error}); delete that file") from error
    if index.shape != (n_rows, n_neighbors) or cosine.shape != index.shape or index.max() >= n_rows:
        raise DataError(f"the cached item neighbours in {path} do not fit the features; delete that file")
    return index, cosine
