"""Sparse operators: the user-item graph and products with it. Sparse in, sparse out."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from hellm_recbole.types import Histories


class SparseOperator(nn.Module):
    """A fixed sparse matrix M, [R, C], applied to dense [C, D] matrices; its transpose is kept for the backward pass.

    Rows are compressed (CSR), indices int32. Autograd through a sparse tensor would multiply by a transposed copy
    made in every step; here the backward is one more product with the stored transpose.
    """

    forward_indptr: Tensor
    forward_indices: Tensor
    forward_data: Tensor
    backward_indptr: Tensor
    backward_indices: Tensor
    backward_data: Tensor

    def __init__(self, matrix: sp.csr_matrix) -> None:
        super().__init__()
        self.shape = matrix.shape
        forward, backward = _csr(matrix), _csr(matrix.T.tocsr())
        for name, parts in (("forward", forward), ("backward", backward)):
            for part, values in zip(("indptr", "indices", "data"), parts, strict=True):
                self.register_buffer(f"{name}_{part}", values, persistent=False)
        self._built: tuple[Tensor, Tensor] | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> SparseOperator:
        self._built = None  # the buffers move to another device; the matrices made of them must follow
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def matrices(self) -> tuple[Tensor, Tensor]:
        """M and its transpose as sparse tensors."""
        if self._built is None:
            rows, columns = self.shape
            self._built = (
                _tensor(self.forward_indptr, self.forward_indices, self.forward_data, (rows, columns)),
                _tensor(self.backward_indptr, self.backward_indices, self.backward_data, (columns, rows)),
            )
        return self._built

    def forward(self, dense: Tensor) -> Tensor:
        """`M @ dense`: [C, D] -> [R, D], differentiable in `dense`."""
        matrix, transpose = self.matrices()
        product: Tensor = _Product.apply(dense, matrix, transpose)  # type: ignore[no-untyped-call]
        return product

    def transposed(self, dense: Tensor) -> Tensor:
        """`M.T @ dense`: [R, D] -> [C, D], differentiable in `dense`."""
        matrix, transpose = self.matrices()
        product: Tensor = _Product.apply(dense, transpose, matrix)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    """`matrix @ dense` whose gradient is `transpose @ gradient`."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.transpose = transpose
        return torch.mm(matrix, dense)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return torch.mm(ctx.transpose, gradients[0].contiguous()), None, None


def _tensor(indptr: Tensor, indices: Tensor, data: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Sparse CSR tensor support is in beta"
        )  # what is used of it is tested
        return torch.sparse_csr_tensor(indptr, indices, data, shape, check_invariants=True)


def _csr(matrix: sp.csr_matrix) -> tuple[Tensor, Tensor, Tensor]:
    matrix.sort_indices()
    return (
        torch.from_numpy(matrix.indptr.astype(np.int32)),
        torch.from_numpy(matrix.indices.astype(np.int32)),
        torch.from_numpy(matrix.data.astype(np.float32)),
    )


def interaction_matrix(history: Histories, n_items: int) -> sp.csr_matrix:
    """Binary training matrix R, [U + 1, I + 1], float32; repeated pairs count once; row and column 0 are empty."""
    users = history.users()
    matrix = sp.csr_matrix(
        (np.ones(len(users), dtype=np.float32), (users, history.items)), shape=(history.n_users + 1, n_items + 1)
    )
    matrix.data[:] = 1.0  # duplicates were summed
    return matrix


def normalized_interactions(history: Histories, n_items: int) -> sp.csr_matrix:
    """`B_ui = R_ui / sqrt(deg(u) deg(i))`, [U + 1, I + 1]: the upper right block of the symmetric user-item operator.

    The graph is bipartite, so `B` and its transpose are all of `D^-1/2 A D^-1/2`. A user or item without training
    interactions has an empty row or column (RecBole adds 1e-7 to degrees instead; there is no edge to see the
    difference).
    """
    matrix = interaction_matrix(history, n_items).tocoo()
    user_degree = np.bincount(matrix.row, minlength=matrix.shape[0]).astype(np.float64)
    item_degree = np.bincount(matrix.col, minlength=matrix.shape[1]).astype(np.float64)
    weight = 1.0 / np.sqrt(user_degree[matrix.row] * item_degree[matrix.col])
    return sp.csr_matrix((weight.astype(np.float32), (matrix.row, matrix.col)), shape=matrix.shape)
