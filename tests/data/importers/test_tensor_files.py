"""Matrices that torch has saved: read without running code."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hellm_recbole.data.importers.tensor_files import list_tensor_features, read_tensor
from hellm_recbole.errors import DataError


class Touch:
    """Object whose pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_a_matrix_is_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "text_feat.pt"
    torch.save(torch.tensor([[1, 2], [3, 4], [5, 6]]).to(dtype).T, path)
    values = read_tensor(path)
    assert values.dtype == np.float32
    assert values.tolist() == [[1, 3, 5], [2, 4, 6]]
    torch.save(torch.nn.Parameter(torch.eye(2)), path)
    assert read_tensor(path).tolist() == [[1, 0], [0, 1]]


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path, made = tmp_path / "img_feat.pt", tmp_path / "made"
    torch.save(Touch(made), path)
    with pytest.raises(DataError, match=r"img_feat\.pt holds more than tensors \(.*mkdir.*as image_feat\.npy"):
        read_tensor(path)
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"not a tensor", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text_feat.pt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_tensor(path)
    assert "text_feat.pt is not a file of torch tensors, or is damaged" in str(caught.value)
    assert str(caught.value).endswith("save its matrix with numpy.save as text_feat.npy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        {"weight": torch.eye(2)},
        [1.0],
        torch.zeros(3),
        torch.zeros(3, 0),
        torch.eye(2).to_sparse(),
        torch.eye(2, dtype=torch.complex64),
        torch.eye(2).bool(),
    ],
)
def test_anything_but_a_matrix_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "text_feat.pt")
    with pytest.raises(DataError, match=r"text_feat\.pt must hold one matrix of numbers"):
        read_tensor(tmp_path / "text_feat.pt")


def test_modalities_are_listed(tmp_path: Path) -> None:
    for name in ("img_feat.pt", "text_feat.pt", ".audio_feat.pt", "MMHCL_item_embeddings.pt", "text_feat.json"):
        (tmp_path / name).write_bytes(b"")
    assert list_tensor_features(tmp_path) == {"image": tmp_path / "img_feat.pt", "text": tmp_path / "text_feat.pt"}


@pytest.mark.parametrize("ending", ["pkl", "pickle", "npz", "pth", "joblib"])
def test_files_that_may_hold_code_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"img_feat.{ending}").write_bytes(b"")
    with pytest.raises(DataError, match=rf"img_feat\.{ending} is not read, .*numpy\.save as image_feat\.npy, or"):
        list_tensor_features(tmp_path)
    (tmp_path / "image_feat.npy").write_bytes(b"")
    assert list_tensor_features(tmp_path) == {}


@pytest.mark.parametrize("other", ["image_feat.npy", "image_feat.pt"])
def test_a_modality_has_one_file(tmp_path: Path, other: str) -> None:
    for name in ("img_feat.pt", other):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"image_feat\.(npy|pt) both hold features of modality 'image'; keep"):
        list_tensor_features(tmp_path)
