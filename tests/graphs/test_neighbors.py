from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.errors import DataError, MissingDependency
from hellm_recbole.graphs import neighbors
from hellm_recbole.graphs.neighbors import (
    NeighborSearchSettings,
    find_approximate_neighbors,
    find_item_neighbors,
    find_nearest_neighbors,
    list_neighbor_edges,
)

EXACT = NeighborSearchSettings(exact_knn_items=1000, hnsw_links=32, hnsw_build_effort=200, hnsw_search_effort=128)
APPROXIMATE = EXACT.model_copy(update={"exact_knn_items": 100})
FEATURES = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32)


def sort_neighbors(features: np.ndarray, k: int) -> list[set[int]]:
    """Find the k nearest neighbours of each row by a full sort, in double precision."""
    unit = features.astype(np.float64) / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return [set(np.argsort(-(unit @ row), kind="stable")[:k].tolist()) for row in unit]


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_blocks_find_the_same_neighbours_as_a_full_sort(monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    monkeypatch.setattr(neighbors, "BLOCK_BYTES", 4 * len(FEATURES) * block_rows)
    index, cosine = find_nearest_neighbors(FEATURES, 6)
    assert [set(row.tolist()) for row in index] == sort_neighbors(FEATURES, 6)
    assert (index[:, 0] == np.arange(200)).all()
    assert np.allclose(cosine[:, 0], 1.0, atol=1e-6)
    assert (np.diff(cosine, axis=1) <= 0).all()


def test_the_approximate_search_finds_nearly_all_neighbours_and_repeats_its_result() -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(1)
    features = rng.normal(size=(3000, 24)).astype(np.float32)
    exact, found = find_nearest_neighbors(features, 10)[0], find_approximate_neighbors(features, 10, APPROXIMATE)[0]
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    assert shared > 0.95
    assert np.array_equal(found, find_approximate_neighbors(features, 10, APPROXIMATE)[0])


def test_without_faiss_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingDependency, match="faiss-cpu"):
        find_item_neighbors(FEATURES, 3, APPROXIMATE, None)


def test_the_cache_is_read_again_and_its_key_depends_on_all_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = find_item_neighbors(FEATURES, 4, EXACT, tmp_path)
    monkeypatch.setattr(neighbors, "find_nearest_neighbors", lambda *_: pytest.fail("computed again"))
    again = find_item_neighbors(FEATURES, 4, EXACT, tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    monkeypatch.undo()
    changed = FEATURES.copy()
    changed[3, 3] += 1e-3
    find_item_neighbors(changed, 4, EXACT, tmp_path)
    find_item_neighbors(FEATURES, 5, EXACT, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_each_setting_of_an_approximate_search_is_part_of_the_cache_key(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    for change in ({}, {"hnsw_links": 16}, {"hnsw_build_effort": 40}, {"hnsw_search_effort": 16}):
        find_item_neighbors(FEATURES, 4, APPROXIMATE.model_copy(update=change), tmp_path)
        find_item_neighbors(FEATURES, 4, EXACT.model_copy(update=change), tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_the_error_for_a_broken_cache_says_to_delete_the_file(tmp_path: Path, damage: bytes | None) -> None:
    find_item_neighbors(FEATURES, 4, EXACT, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    with pytest.raises(DataError, match="delete that file"):
        find_item_neighbors(FEATURES, 4, EXACT, tmp_path)


def test_more_neighbours_than_items_are_refused() -> None:
    with pytest.raises(DataError, match="lower the setting n_neighbors"):
        find_item_neighbors(FEATURES[:3], 4, EXACT, None)
    with pytest.raises(
        DataError, match="n_neighbors is 2, but there is only 1 item with features of modality image; lower"
    ):
        find_item_neighbors(FEATURES, 2, EXACT, None, np.arange(len(FEATURES)) == 1, "image")


def test_a_cache_that_cannot_be_written_is_still_read_and_a_warning_is_printed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    features = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    stored = find_item_neighbors(features, 3, EXACT, tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write to every folder
    monkeypatch.setattr(neighbors, "find_nearest_neighbors", lambda *_: pytest.fail("computed again"))
    assert np.array_equal(find_item_neighbors(features, 3, EXACT, tmp_path)[0], stored[0])
    monkeypatch.undo()
    assert capsys.readouterr().err == ""
    neighbors._warn_not_cached.cache_clear()
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert np.array_equal(find_item_neighbors(features, 3, EXACT, tmp_path / "file" / "cache")[0], stored[0])
    assert (
        capsys.readouterr().err.count(
            "warning: item neighbours cannot be cached, so that each run computes them: cannot make folder"
        )
        == 1
    )


def test_neighbours_computed_by_other_code_are_not_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    neighbors.find_item_neighbors(features, 2, EXACT, tmp_path)
    neighbors.find_item_neighbors(features, 2, EXACT, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 1
    monkeypatch.setattr(neighbors, "digest_module", lambda name: "edited")
    neighbors.find_item_neighbors(features, 2, EXACT, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2


@pytest.mark.parametrize("approximate", [False, True])
def test_items_without_features_have_no_neighbours_and_are_nobodys(tmp_path: Path, approximate: bool) -> None:
    if approximate:
        pytest.importorskip("faiss")
    settings = APPROXIMATE if approximate else EXACT
    covered = np.random.default_rng(3).random(200) < 0.7
    index, cosine = find_item_neighbors(FEATURES, 4, settings, None, covered)
    assert index.shape == cosine.shape == (covered.sum(), 4)
    assert covered[index].all()
    members = np.flatnonzero(covered)
    if not approximate:
        expected = [{int(members[j]) for j in row} for row in sort_neighbors(FEATURES[covered], 4)]
        assert [set(row.tolist()) for row in index] == expected
    changed = np.where(covered[:, None], FEATURES, 9.0).astype(np.float32)
    for values in (FEATURES, changed):  # the second one finds the first one's file: fill values are not in its key
        found = find_item_neighbors(values, 4, settings, tmp_path, covered)
        assert np.array_equal(found[0], index)
        assert np.array_equal(found[1], cosine)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_mask_is_part_of_the_cache_key(tmp_path: Path) -> None:
    covered = np.arange(200) % 3 > 0
    for mask in (None, covered, np.roll(covered, 1), covered):
        found, _ = find_item_neighbors(FEATURES, 4, EXACT, tmp_path, mask)
        assert np.array_equal(found, find_item_neighbors(FEATURES, 4, EXACT, None, mask)[0])
    assert len(list(tmp_path.iterdir())) == 3


def test_equal_rows_at_other_places_share_a_cache_file_and_keep_their_own_numbers(tmp_path: Path) -> None:
    covered = np.arange(6) < 4
    moved = np.concatenate([FEATURES[4:6], FEATURES[:4]])
    first, _ = find_item_neighbors(FEATURES[:6], 2, EXACT, tmp_path, covered)
    second, _ = find_item_neighbors(moved, 2, EXACT, tmp_path, np.arange(6) >= 2)
    assert np.array_equal(second, first + 2)
    assert len(list(tmp_path.iterdir())) == 1


def test_edges_lead_from_ids_to_ids() -> None:
    index = np.array([[0, 2], [2, 0]], dtype=np.int32)
    row, column = list_neighbor_edges(index, np.array([True, False, True]))
    assert row.tolist() == [1, 1, 3, 3]
    assert column.tolist() == [1, 3, 3, 1]
    assert list_neighbor_edges(index)[0].tolist() == [1, 1, 2, 2]
