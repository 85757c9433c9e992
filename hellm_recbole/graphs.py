"""Sparse operators: the user-item graph and products with it. Sparse in, sparse out."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.types import Histories


class SparseOperator(nn.Module):
    """A fixed sparse matrix M, [R, C], applied to dense [C, D] matrices, from either side.

    Autograd through a sparse tensor would multiply by a transposed copy made in every step; here the rows of the
    transpose are kept, and the backward pass is one more product.

    Attributes:
        rows: products `M @ dense`, [C, D] -> [R, D], outside autograd.
        columns: products `M.T @ dense`, [R, D] -> [C, D], outside autograd.
    """

    def __init__(self, matrix: sp.csr_matrix) -> None:
        super().__init__()
        self.shape = matrix.shape
        self.rows, self.columns = _Rows(matrix), _Rows(matrix.T.tocsr())

    def forward(self, dense: Tensor) -> Tensor:
        """`M @ dense`: [C, D] -> [R, D], differentiable in `dense`."""
        product: Tensor = _Product.apply(dense, self.rows, self.columns)  # type: ignore[no-untyped-call]
        return product

    def transposed(self, dense: Tensor) -> Tensor:
        """`M.T @ dense`: [R, D] -> [C, D], differentiable in `dense`."""
        product: Tensor = _Product.apply(dense, self.columns, self.rows)  # type: ignore[no-untyped-call]
        return product


class _Rows(nn.Module):
    """A compressed sparse matrix: each row of a product is a weighted sum of rows of the dense matrix.

    That is torch's embedding bag, which fetches rows ahead: 3 times as fast as a sparse-dense `torch.mm` on two cores.
    """

    indptr: Tensor
    indices: Tensor
    data: Tensor

    def __init__(self, matrix: sp.csr_matrix) -> None:
        super().__init__()
        matrix.sort_indices()
        for name, kind in (("indptr", np.int32), ("indices", np.int32), ("data", np.float32)):
            self.register_buffer(name, torch.from_numpy(getattr(matrix, name).astype(kind)), persistent=False)

    def forward(self, dense: Tensor) -> Tensor:
        """[C, D] -> [R, D], outside autograd."""
        return F.embedding_bag(
            self.indices,
            dense.detach(),
            self.indptr,
            mode="sum",
            per_sample_weights=self.data,
            include_last_offset=True,
        )


class _Product(torch.autograd.Function):
    """A product whose gradient is the product with the transpose."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: _Rows, transpose: _Rows) -> Tensor:
        ctx.transpose = transpose
        product: Tensor = matrix(dense)
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transpose(gradients[0].contiguous()), None, None


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
