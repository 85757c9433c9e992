from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from hellm_recbole.errors import DataError
from hellm_recbole.export import export_embeddings, export_recommendations

USERS = np.array(["u1", "u2"])
ITEMS = np.array([["i3", "i1"], ["i2", "i1"]])


def test_recommendations_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "new" / "recommendations.parquet"
    export_recommendations(path, USERS, ITEMS, np.array([[0.9, 0.5], [0.25, -np.inf]], dtype=np.float32))
    frame = pd.read_parquet(path)
    assert list(frame.columns) == ["user_id", "rank", "item_id", "score"]
    assert frame.to_numpy().tolist() == [
        ["u1", 1, "i3", pytest.approx(0.9)],
        ["u1", 2, "i1", 0.5],
        ["u2", 1, "i2", 0.25],
    ]
    assert frame["rank"].dtype == np.int32
    assert frame["score"].dtype == np.float32
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("users", "items", "scores"),
    [
        (USERS, ITEMS, np.zeros((2, 3), dtype=np.float32)),
        (USERS[:1], ITEMS, np.zeros((2, 2), dtype=np.float32)),
        (USERS, ITEMS, np.array([[np.nan, 0], [0, 0]], dtype=np.float32)),
    ],
)
def test_recommendations_that_do_not_fit_are_refused(
    tmp_path: Path, users: np.ndarray, items: np.ndarray, scores: np.ndarray
) -> None:
    with pytest.raises(DataError, match=r"recommendations for .*r\.parquet"):
        export_recommendations(tmp_path / "r.parquet", users, items, scores)
    assert os.listdir(tmp_path) == []


def test_embeddings_come_back_with_their_tokens(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    users, items = generator.random((2, 4), dtype=np.float32), generator.random((3, 4), dtype=np.float32)
    tokens = np.array(["a b", "é", "7"])
    export_embeddings(tmp_path / "out", USERS, users, tokens, items[::-1])  # a view that is not contiguous
    tensors = load_file(tmp_path / "out" / "embeddings.safetensors")
    np.testing.assert_array_equal(tensors["users"], users)
    np.testing.assert_array_equal(tensors["items"], items[::-1])
    assert (tmp_path / "out" / "items.txt").read_text(encoding="utf-8").splitlines() == tokens.tolist()
    assert (tmp_path / "out" / "users.txt").read_text().splitlines() == ["u1", "u2"]
    assert sorted(os.listdir(tmp_path / "out")) == ["embeddings.safetensors", "items.txt", "users.txt"]


@pytest.mark.parametrize("tokens", [np.array(["", "u1"]), np.array(["u1"])])
def test_embeddings_with_a_padding_row_are_refused(tmp_path: Path, tokens: np.ndarray) -> None:
    vectors = np.zeros((2, 4), dtype=np.float32)
    with pytest.raises(DataError, match="of users; they must be as many, without the padding row"):
        export_embeddings(tmp_path, tokens, vectors, USERS, vectors)
    assert os.listdir(tmp_path) == []
