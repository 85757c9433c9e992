"""A changed byte in a file that affects results: the file is rejected, or its content is read without a change."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.data.embeddings import export_embeddings, read_item_embeddings
from hellm_recbole.data.encoding_cache import _read_cache, _write_cache
from hellm_recbole.errors import HellmError
from hellm_recbole.experiments.earlier_search import refuse_other_request
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import read_result
from hellm_recbole.experiments.search_state import copy_state, restore_state
from hellm_recbole.experiments.sweeps import read_search, read_tuned, write_search, write_tuned
from hellm_recbole.graphs.neighbors import NeighborSearchSettings, find_item_neighbors
from hellm_recbole.system.files import seal, sha256_file
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from tests.toy_records import add_run, toy_ranks, toy_search, toy_trial

N_CHANGES = 150  # number of changed bytes that are tried in each file
RUN = {"setting emb_dim": "64", "seed": "1"}
REQUEST = {"budget": "trials=2", "space": {"n_layers": [1, 2]}, "identity": {"split": "a", "code x": "b"}}
TOKENS = np.array(["", *(f"i{number}" for number in range(1, 13))])
VALUES = np.random.default_rng(3).normal(size=(12, 4)).astype(np.float32)
Reader = Callable[[], Any]


def write_checkpoint(folder: Path) -> Reader:
    progress = Progress(RUN, 2, 1, 0.18, 1, False, 1.5, 0.25, ({"epoch": 1, "losses": {"bpr": 0.5}, "valid": None},))
    checkpoint_folder = CheckpointFolder(folder)
    checkpoint_folder.save(
        progress, {"model.w": torch.ones(3), "optimizer.0.step": torch.ones(1)}, {"model.w": torch.ones(3)}
    )
    return lambda: (checkpoint_folder.load(RUN), checkpoint_folder.load_best())


def write_record(folder: Path) -> Reader:
    path = add_run(folder, [1, 5, 30])
    return lambda: read_result(path)


def write_ranks(folder: Path) -> Reader:
    path = add_run(folder, np.arange(1, 200)).parent / "ranks.npz"
    digest = sha256_file(path)
    return lambda: read_ranks(path, digest)


def write_search_file(folder: Path) -> Reader:
    path = write_search(folder, toy_search([toy_trial(1, 0.1), toy_trial(2, 0.2)]))
    return lambda: read_search(path)


def write_tuned_file(folder: Path) -> Reader:
    sweep = toy_search([toy_trial(1, 0.1), toy_trial(2, 0.2)])
    write_tuned(folder, sweep)
    return lambda: read_tuned(folder, "Toy", "LightGCN", sweep.split_hash)


def write_request(folder: Path) -> Reader:
    path = folder / "request.json"
    path.write_text(json.dumps(seal(REQUEST), indent=1))
    return lambda: refuse_other_request(path, REQUEST, finished=True)


def write_search_state(folder: Path) -> Reader:
    staging, ray = (folder.with_name(f"{folder.name}-{name}") for name in ("staging", "ray"))
    for path in (staging, ray):
        path.mkdir()
    (staging / "experiment_state-1.json").write_text(json.dumps({"trial_data": ["a", 0.25], "more": "x" * 300}))
    (staging / "basic-variant-state-1.json").write_bytes(bytes(range(256)))
    (folder / "ray").mkdir()
    (folder / "ray" / "tuner.pkl").write_bytes(bytes(range(255)))
    copy_state(staging, folder / "ray")
    shutil.rmtree(folder / "ray")

    def read() -> list[bytes]:
        assert restore_state(folder / "state", ray)
        return [path.read_bytes() for path in sorted(ray.iterdir())]

    return read


def write_embeddings(folder: Path) -> Reader:
    export_embeddings(folder / "out", np.array(["u"]), VALUES[:1], TOKENS[1:], VALUES)
    (folder / "out" / "users.txt").unlink()  # no run reads this file
    return lambda: read_item_embeddings(folder / "out", TOKENS)


def write_neighbors(folder: Path) -> Reader:
    find_item_neighbors(VALUES, 3, SEARCH, folder)
    return lambda: find_item_neighbors(VALUES, 3, SEARCH, folder)


def write_encodings(folder: Path) -> Reader:
    _write_cache(folder / "part.npy", VALUES)
    return lambda: _read_cache(folder / "part.npy", len(VALUES))


SEARCH = NeighborSearchSettings(exact_knn_items=100, hnsw_links=32, hnsw_build_effort=200, hnsw_search_effort=128)
WRITERS = (
    *(write_checkpoint, write_record, write_ranks, write_search_file, write_tuned_file, write_request),
    *(write_search_state, write_embeddings, write_neighbors, write_encodings),
)


def are_equal(one: Any, other: Any) -> bool:
    """Return whether two results of a reader are equal. Arrays must be equal to the last bit."""
    if isinstance(one, torch.Tensor | np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(other))
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(are_equal(one[key], other[key]) for key in one)
    if hasattr(one, "rank_train"):
        return are_equal(vars(one), vars(other))
    return bool(one == other)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_one_changed_byte_is_rejected_or_harmless(tmp_path: Path, write: Callable[[Path], Reader]) -> None:
    read = write(tmp_path)
    original, generator = read(), random.Random(0)
    messages: list[str] = []
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    if write in (write_record, write_ranks):  # both functions write both files
        files = [path for path in files if path.stem == write.__name__.removeprefix("write_")]
    for path in files:
        content = path.read_bytes()
        for _ in range(N_CHANGES):
            position, flip = generator.randrange(len(content)), generator.randrange(1, 256)
            path.write_bytes(content[:position] + bytes([content[position] ^ flip]) + content[position + 1 :])
            try:
                assert are_equal(original, read()), (
                    f"{path.name}, byte {position} changed by {flip}: other content without an error"
                )
            except HellmError as error:
                messages.append(str(error))
        path.write_bytes(content)
    assert are_equal(original, read())
    assert len(messages) > N_CHANGES * len(files) / 2
    assert [message for message in messages if "\n" in message] == []


def test_ranks_of_another_run_are_rejected(tmp_path: Path) -> None:
    path = add_run(tmp_path, [1, 2, 3]).parent / "ranks.npz"
    with pytest.raises(HellmError, match="is not that of what was written"):
        read_ranks(path, "0" * 64)
    assert np.array_equal(read_ranks(path)["test"].rank, toy_ranks([1, 2, 3]).rank)
