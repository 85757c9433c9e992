from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.errors import DataError

Prepare = Callable[..., Prepared]


def test_features_follow_tokens_not_rows(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    np.save(folder / "image_feat.npy", np.array([[4.0], [2.0], [1.0], [3.0]]))
    (folder / "image_feat.tokens.txt").write_text("d\nb\na\nc\n")
    loaded = load_dataset(folder, modalities=["image"]).features["image"]
    assert loaded.dtype == np.float32
    assert loaded.tolist() == [[0], [1], [2], [3], [4]]
    assert load_dataset(folder, modalities=[]).features == {}


@pytest.mark.parametrize(
    ("values", "tokens", "message"),
    [
        (np.eye(4), "a\nb\nc\n", "4 rows but image_feat.tokens.txt has 3 tokens"),
        (np.eye(4), "a\nb\nc\na\n", "image_feat.tokens.txt:4: token 'a' is already on line 1"),
        (np.eye(3), "a\nb\nc\n", "no row for 1 item ('d')"),
        (np.eye(5), "a\nb\nc\nd\nq\n", "rows for 1 item ('q') without interactions"),
        (np.eye(4) * np.nan, "a\nb\nc\nd\n", "row 0 (item 'a') contains NaN or infinity, 4 such rows in total"),
        (np.diag([1, 1, np.inf, 1]), "a\nb\nc\nd\n", "row 2 (item 'c') contains NaN or infinity"),
        (np.diag([1, 1, 1e300, 1]), "a\nb\nc\nd\n", "row 2 (item 'c') contains NaN or infinity"),
        (np.ones(4), "a\nb\nc\nd\n", "must hold one matrix of numbers"),
        (np.array([["x"]] * 4), "a\nb\nc\nd\n", "must hold one matrix of numbers"),
        (np.eye(4), "", "image_feat.tokens.txt is empty"),
        (np.eye(4), None, "image_feat.tokens.txt cannot be read"),
        (None, "a\nb\nc\nd\n", "image_feat.npy cannot be read as a .npy matrix"),
    ],
)
def test_faulty_features(
    sequences: Path, prepare_toy: Prepare, values: np.ndarray | None, tokens: str | None, message: str
) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    if values is None:
        (folder / "image_feat.npy").write_bytes(b"\x93NUMPY half a file")
    else:
        np.save(folder / "image_feat.npy", values)
    if tokens is not None:
        (folder / "image_feat.tokens.txt").write_text(tokens)
    with pytest.raises(DataError) as caught:
        load_dataset(folder, modalities=None)
    assert message in str(caught.value)


def test_a_damaged_archive_is_refused(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    (folder / "image_feat.npy").write_bytes(b"PK\x03\x04 half of an .npz")
    with pytest.raises(DataError, match=r"cannot be read as a \.npy matrix: File is not a zip file"):
        load_dataset(folder, modalities=["image"])


def test_a_pickled_matrix_is_refused(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    np.save(folder / "image_feat.npy", np.array([[{}]] * 4), allow_pickle=True)
    (folder / "image_feat.tokens.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(DataError, match=r"cannot be read as a \.npy matrix"):
        load_dataset(folder, modalities=None)


def test_permuted_rows_are_refused_and_permuted_tokens_are_followed(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    as_prepared = load_dataset(folder, modalities=None).features["image"]
    path, tokens = folder / "image_feat.npy", folder / "image_feat.tokens.txt"
    np.save(path, np.load(path)[::-1])
    with pytest.raises(DataError, match=r"image_feat\.npy has changed"):
        load_dataset(folder, modalities=None)
    tokens.write_text("".join(reversed(tokens.read_text().splitlines(keepends=True))))
    np.testing.assert_array_equal(load_dataset(folder, modalities=None, verify=False).features["image"], as_prepared)
