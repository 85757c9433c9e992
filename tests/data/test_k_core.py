from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.k_core import find_k_core
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.errors import DataError

Prepare = Callable[..., Prepared]


def slow_k_core(pairs: list[tuple[int, int]], k_core: int) -> list[bool]:
    """Drop one user or item at a time, until nothing changes."""
    alive = [True] * len(pairs)
    changed = True
    while changed:
        changed = False
        for side in (0, 1):
            for node in {pair[side] for pair in pairs}:
                rows = [row for row, pair in enumerate(pairs) if alive[row] and pair[side] == node]
                if 0 < len(rows) < k_core:
                    for row in rows:
                        alive[row] = False
                    changed = True
    return alive


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40),
    st.integers(0, 4),
)
def test_k_core_equals_dropping_users_and_items_one_by_one(pairs: list[tuple[int, int]], k_core: int) -> None:
    user, item = np.array(pairs, dtype=np.int64).T
    assert find_k_core(user, item, k_core).tolist() == slow_k_core(pairs, k_core)


def test_k_core_is_repeated_until_it_is_stable() -> None:
    # Item 2 goes first, which takes user 1 below two, which takes items 0 and 1 below two.
    user, item = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 2])
    assert not find_k_core(user, item, 2).any()
    assert find_k_core(user, item, 0).all()


def test_the_error_about_a_filter_that_drops_everything_gives_advice(
    sequences: Path, root: Path, prepare_toy: Prepare
) -> None:
    with pytest.raises(DataError, match=r"the 4-core filter drops all 10 interactions; choose a lower --k-core"):
        prepare_toy(sequences, "sequences", k_core=4)
    assert not root.exists() or list(root.iterdir()) == []


def test_k_core_is_recorded_and_dropped_items_may_keep_features(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences", k_core=3).folder
    np.save(folder / "image_feat.npy", np.eye(4))
    (folder / "image_feat.tokens.txt").write_text("a\nb\nc\nd\n")  # d was dropped, so its features are allowed
    dataset = load_dataset(folder, modalities=None)
    assert (dataset.k_core, dataset.n_dropped, dataset.n_items) == (3, 1, 3)
    assert dataset.features["image"].shape == (4, 4)
    assert read_manifest(folder).counts.to_json() == {
        "before": {"users": 3, "items": 4, "interactions": 10},
        "after": {"users": 3, "items": 3, "interactions": 9},
    }


def test_users_that_the_filter_drops_are_counted(sequences: Path, prepare_toy: Prepare) -> None:
    (sequences / "user_sequences.txt").write_text("u1 a b c\nu2 b c a\nu3 c a b d\nu4 a\nu5 b c\n")
    for k_core, n_dropped in ((3, 2), (0, 0)):
        folder = prepare_toy(sequences, "sequences", k_core=k_core, name=f"Toy{k_core}").folder
        assert load_dataset(folder, modalities=None).n_dropped_users == n_dropped
