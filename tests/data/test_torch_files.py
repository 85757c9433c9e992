"""Files of torch: tensors of every kind become a matrix or are refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hellm_recbole.data.embedding_files import read_embedding_file
from hellm_recbole.data.importers.tensor_files import read_tensor
from hellm_recbole.data.torch_files import convert_matrix, load_torch_file
from hellm_recbole.errors import DataError
from hellm_recbole.types import FloatArray

COMPLEX = torch.tensor([[1 + 2j, 3 - 4j]])


def read_embeddings(path: Path) -> FloatArray:
    return read_embedding_file(path).values


def catch_both(tmp_path: Path, write: Callable[[Path], object]) -> list[str]:
    """Return the messages of both readers of such files."""
    sentences = []
    for name, read in (("text_feat.pt", read_tensor), ("graph.pt", read_embeddings)):
        write(tmp_path / name)
        with pytest.raises(DataError) as caught:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
        sentences.append(str(caught.value))
    return sentences


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (COMPLEX.conj().imag, [[-2, 4]]),  # a view with the negative bit
        (torch.view_as_real(COMPLEX)[..., 0].expand(2, 2), [[1, 3], [1, 3]]),
        (torch.tensor([[1, 2], [3, 4]], dtype=torch.uint16), [[1, 2], [3, 4]]),
        (torch.eye(2, requires_grad=True), [[1, 0], [0, 1]]),
    ],
)
def test_dense_matrices_are_converted(tmp_path: Path, tensor: torch.Tensor, expected: list[list[float]]) -> None:
    path = tmp_path / "graph.pt"
    torch.save(tensor, path)
    (tmp_path / "graph.tokens.txt").write_text("".join(f"{row}\n" for row in range(len(expected))))
    values = read_embeddings(path)
    assert values.dtype == np.float32
    assert values.tolist() == expected == read_tensor(path).tolist()


@pytest.mark.filterwarnings("ignore")  # torch: nested, quantized and CSR tensors are prototypes
@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: torch.empty(3, 2, device="meta"), "it holds a tensor without values (device meta)"),
        (lambda: COMPLEX.conj(), "it holds a complex tensor"),
        (lambda: torch.eye(3).to_sparse(), "it holds a sparse tensor"),
        (lambda: torch.eye(3).to_sparse_csr(), "it holds a sparse tensor"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "it holds a nested tensor"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), "a nested tensor"),
        (lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8), "it holds a quantized tensor"),
        (lambda: torch.empty(3, 2, dtype=torch.bits8), "it holds numbers of type torch.bits8"),
    ],
)
def test_special_tensors_are_refused_in_one_sentence(
    tmp_path: Path, build: Callable[[], torch.Tensor], said: str
) -> None:
    for sentence in catch_both(tmp_path, lambda path: torch.save(build(), path)):
        assert said in sentence


@pytest.mark.parametrize("content", [b"", b"hello world\n", b"PK\x03\x04 cut off", bytes(99)])
def test_other_files_are_not_files_of_torch_tensors(tmp_path: Path, content: bytes) -> None:
    for sentence in catch_both(tmp_path, lambda path: path.write_bytes(content)):
        assert "is not a file of torch tensors, or is damaged; save" in sentence


def test_a_missing_file_is_named_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.pt cannot be read: No such file or directory"):
        load_torch_file(tmp_path / "gone.pt", "save it again")


def test_anything_but_a_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.pt must hold one matrix of numbers, with one row for each item$"):
        convert_matrix(tmp_path / "gone.pt", [1.0])
