"""Exported embeddings are read back with their tokens, and a padding row is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hellm_recbole.data.embeddings import export_embeddings, read_item_embeddings
from hellm_recbole.errors import DataError

USERS = np.array(["u1", "u2"])


def test_exported_embeddings_are_read_back_with_their_tokens(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    users, items = generator.random((2, 4), dtype=np.float32), generator.random((3, 4), dtype=np.float32)
    tokens = np.array(["a b", "é", "7"])
    export_embeddings(tmp_path / "out", USERS, users, tokens, items[::-1])  # a view that is not contiguous
    tensors = load_file(tmp_path / "out" / "embeddings.safetensors")
    np.testing.assert_array_equal(tensors["users"], users)
    np.testing.assert_array_equal(tensors["items"], items[::-1])
    assert (tmp_path / "out" / "items.txt").read_text(encoding="utf-8").splitlines() == tokens.tolist()
    assert (tmp_path / "out" / "users.txt").read_text().splitlines() == ["u1", "u2"]
    assert sorted(os.listdir(tmp_path / "out")) == ["SHA256SUMS", "embeddings.safetensors", "items.txt", "users.txt"]


@pytest.mark.parametrize("tokens", [np.array(["", "u1"]), np.array(["u1"])])
def test_embeddings_with_a_padding_row_are_refused(tmp_path: Path, tokens: np.ndarray) -> None:
    vectors = np.zeros((2, 4), dtype=np.float32)
    with pytest.raises(DataError, match="of users; pass one row for each token, without the padding row"):
        export_embeddings(tmp_path, tokens, vectors, USERS, vectors)
    assert os.listdir(tmp_path) == []


def test_tokens_with_other_line_separators_are_read_back(tmp_path: Path) -> None:
    items = np.arange(12, dtype=np.float32).reshape(4, 3)
    tokens = np.array(["a\u2028b", "c\u2029d", "e\x85f", "g"])
    export_embeddings(tmp_path, USERS, items[:2], tokens, items)
    found = read_item_embeddings(tmp_path, np.array(["", *tokens[::-1]]))
    np.testing.assert_array_equal(found, np.concatenate([np.zeros((1, 3)), items[::-1]]))
