"""Sparse matrices of the user-item graph, and their products with dense matrices.

No function here builds a dense matrix from a sparse one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.types import Histories


class SparseOperator(nn.Module):
    """A fixed sparse matrix M, [R, C], that multiplies dense [C, D] matrices.

    With a sparse torch tensor, autograd would make a transposed copy in every training step. This class stores the
    transpose once, so the backward pass is one more product.

    Attributes:
        shape: (R, C).
        matrix: computes `M @ dense`, [C, D] -> [R, D], outside autograd.
        transpose: computes `M.T @ dense`, [R, D] -> [C, D], outside autograd.
    """

    def __init__(self, matrix: sp.csr_matrix) -> None:
        super().__init__()
        self.shape = matrix.shape
        self.matrix, self.transpose = _CsrMatrix(matrix), _CsrMatrix(matrix.T.tocsr())

    def forward(self, dense: Tensor) -> Tensor:
        """Compute `M @ dense`: [C, D] -> [R, D], differentiable in `dense`."""
        product: Tensor = _Product.apply(dense, self.matrix, self.transpose)  # type: ignore[no-untyped-call]
        return product

    def multiply_transposed(self, dense: Tensor) -> Tensor:
        """Compute `M.T @ dense`: [R, D] -> [C, D], differentiable in `dense`."""
        product: Tensor = _Product.apply(dense, self.transpose, self.matrix)  # type: ignore[no-untyped-call]
        return product

    def multiply_rows(self, dense: Tensor, rows: Tensor) -> Tensor:
        """Compute only the given rows of `M @ dense`, differentiable in `dense`; they are equal bit for bit.

        Args:
            dense: [C, D] dense matrix.
            rows: [N] distinct rows of the product to compute.

        Returns:
            [N, D] rows of the product.
        """
        product: Tensor = _RowProduct.apply(dense, rows, self.matrix, self.transpose)  # type: ignore[no-untyped-call]
        return product


def multiply_csr(dense: Tensor, indptr: Tensor, indices: Tensor, weights: Tensor | None) -> Tensor:
    """Multiply a sparse matrix in CSR format by a dense matrix, outside autograd.

    It uses torch's embedding bag, which prefetches the rows that it sums. On two CPU cores it is 3 times as fast as a
    sparse-dense `torch.mm`.

    Args:
        dense: [C, D] dense matrix.
        indptr: [R + 1] start of each sparse row in `indices`.
        indices: [E] column of each non-zero.
        weights: [E] value of each non-zero; None if all values are 1.

    Returns:
        [R, D] product, in the precision of `dense`.
    """
    weights = None if weights is None else weights.detach().to(dense.dtype)
    return F.embedding_bag(
        indices, dense.detach(), indptr, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


class _CsrMatrix(nn.Module):
    """A fixed [R, C] sparse matrix in CSR format, with E non-zeros.

    Attributes:
        indptr: [R + 1] int32, start of each row in `indices`.
        indices: [E] int32, column of each non-zero.
        data: [E] float32, value of each non-zero; None if all values are 1.
    """

    indptr: Tensor
    indices: Tensor
    data: Tensor | None

    def __init__(self, matrix: sp.csr_matrix) -> None:
        super().__init__()
        matrix.sort_indices()
        self.n_columns = matrix.shape[1]
        for name, kind in (("indptr", np.int32), ("indices", np.int32), ("data", np.float32)):
            self.register_buffer(name, torch.from_numpy(getattr(matrix, name).astype(kind)), persistent=False)
        if (matrix.data == 1).all():
            self.data = None

    def forward(self, dense: Tensor) -> Tensor:
        """Multiply by `dense`, [C, D] -> [R, D], outside autograd, in the precision of `dense`."""
        return multiply_csr(dense, self.indptr, self.indices, self.data)

    def compute_product_rows(self, dense: Tensor, rows: Tensor) -> Tensor:
        """Compute the given rows of the product with `dense`, outside autograd.

        Args:
            dense: [C, D] dense matrix.
            rows: [N] rows of the product to compute.

        Returns:
            [N, D] rows of the product.
        """
        starts = self.indptr[rows]
        lengths = self.indptr[rows + 1] - starts
        indptr = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
        entries = torch.repeat_interleave(starts - indptr[:-1], lengths)
        entries += torch.arange(len(entries), dtype=torch.int32, device=rows.device)
        weights = None if self.data is None else self.data.index_select(0, entries)
        return multiply_csr(dense, indptr, self.indices.index_select(0, entries), weights)

    def multiply_nonzero_rows(self, part: Tensor, columns: Tensor) -> Tensor:
        """Multiply by a dense matrix of which only the non-zero rows are given, outside autograd.

        All zero rows share one stored row of zeros, so that the rows to read fit in the CPU caches.

        Args:
            part: [N, D] non-zero rows of the dense matrix.
            columns: [N] distinct positions of these rows in the dense matrix, 0..C-1.

        Returns:
            [R, D] product.
        """
        position = self.indices.new_zeros(self.n_columns)  # of each dense row in the padded `part`; 0 is the zero row
        position[columns] = torch.arange(1, len(columns) + 1, dtype=position.dtype, device=position.device)
        return multiply_csr(F.pad(part, (0, 0, 1, 0)), self.indptr, position.index_select(0, self.indices), self.data)


class _Product(torch.autograd.Function):
    """The product `M @ dense`; its gradient is a product with the transpose of M."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: _CsrMatrix, transpose: _CsrMatrix) -> Tensor:
        ctx.transpose = transpose
        product: Tensor = matrix(dense)
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transpose(gradients[0].contiguous()), None, None


class _RowProduct(torch.autograd.Function):
    """Some rows of the product `M @ dense`; in the gradient, all other rows of the product have none."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, rows: Tensor, matrix: _CsrMatrix, transpose: _CsrMatrix) -> Tensor:
        ctx.transpose = transpose
        ctx.save_for_backward(rows)
        return matrix.compute_product_rows(dense, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (rows,) = ctx.saved_tensors
        return ctx.transpose.multiply_nonzero_rows(gradients[0].contiguous(), rows), None, None, None


def build_interaction_matrix(history: Histories, n_items: int) -> sp.csr_matrix:
    """Build the binary training matrix R, [U + 1, I + 1], float32.

    Repeated pairs count once. Row 0 and column 0 (padding) are empty.

    Args:
        history: training interactions.
        n_items: I.
    """
    users = history.repeat_users()
    matrix = sp.csr_matrix(
        (np.ones(len(users), dtype=np.float32), (users, history.items)), shape=(history.n_users + 1, n_items + 1)
    )
    matrix.data[:] = 1.0  # scipy has summed repeated pairs
    return matrix


def normalize_interactions(history: Histories, n_items: int) -> sp.csr_matrix:
    """Build the training matrix and normalise it by `normalize_bipartite`, [U + 1, I + 1]."""
    return normalize_bipartite(build_interaction_matrix(history, n_items))


def normalize_bipartite(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Compute `B_ui = R_ui / sqrt(deg(u) deg(i))`, the upper right block of the normalised user-item adjacency.

    The graph is bipartite, so `B` and its transpose are the only non-zero blocks of `D^-1/2 A D^-1/2`. A user or item
    without interactions has an empty row or column. RecBole adds 1e-7 to degrees instead, which changes no edge of
    such a node, because it has none.

    Args:
        matrix: binary R, [U + 1, I + 1].

    Returns:
        B, [U + 1, I + 1], float32.
    """
    edges = matrix.tocoo()
    user_degree = np.bincount(edges.row, minlength=matrix.shape[0]).astype(np.float64)
    item_degree = np.bincount(edges.col, minlength=matrix.shape[1]).astype(np.float64)
    weight = 1.0 / np.sqrt(user_degree[edges.row] * item_degree[edges.col])
    return sp.csr_matrix((weight.astype(np.float32), (edges.row, edges.col)), shape=matrix.shape)


def scale_rows(matrix: sp.csr_matrix, factor: np.ndarray) -> sp.csr_matrix:
    """Multiply each row of a matrix by its factor, in float32.

    Args:
        matrix: [R, C] sparse matrix.
        factor: [R] factor of each row.
    """
    scaled = matrix.copy()
    scaled.data = (matrix.data * np.repeat(factor, np.diff(matrix.indptr))).astype(np.float32)
    return scaled
