"""Sparse operators: the user-item graph and products with it. Sparse in, sparse out."""

from __future__ import annotations

import warnings
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


def _weighted_sums(dense: Tensor, indptr: Tensor, indices: Tensor, weights: Tensor | None) -> Tensor:
    """Rows of a sparse-dense product, [C, D] -> [R, D], outside autograd; the sparse matrix is in compressed rows.

    That is torch's embedding bag, which fetches rows ahead: 3 times as fast as a sparse-dense `torch.mm` on two cores.
    Without weights all are one.
    """
    weights = None if weights is None else weights.detach().to(dense.dtype)
    return F.embedding_bag(
        indices, dense.detach(), indptr, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


class _Rows(nn.Module):
    """A fixed sparse matrix in compressed rows, indices int32; `data` is None where all of it is ones."""

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
        """[C, D] -> [R, D], outside autograd, in the precision of `dense`."""
        return _weighted_sums(dense, self.indptr, self.indices, self.data)

    def some(self, dense: Tensor, rows: Tensor) -> Tensor:
        """The given rows of the product, [C, D] -> [N, D], outside autograd."""
        starts = self.indptr[rows]
        lengths = self.indptr[rows + 1] - starts
        indptr = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
        entries = torch.repeat_interleave(starts - indptr[:-1], lengths)
        entries += torch.arange(len(entries), dtype=torch.int32, device=rows.device)
        weights = None if self.data is None else self.data.index_select(0, entries)
        return _weighted_sums(dense, indptr, self.indices.index_select(0, entries), weights)

    def from_some(self, part: Tensor, columns: Tensor) -> Tensor:
        """The product with a matrix that is zero but for the given rows, [N, D] -> [R, D], outside autograd.

        All other rows are one row of zeros, so what is read stays in the caches.
        """
        place = self.indices.new_zeros(self.n_columns)
        place[columns] = torch.arange(1, len(columns) + 1, dtype=place.dtype, device=place.device)
        return _weighted_sums(F.pad(part, (0, 0, 1, 0)), self.indptr, place.index_select(0, self.indices), self.data)


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


class EdgePattern(nn.Module):
    """Positions of a sparse [R, C] matrix whose values change and are learned: E edges, in row-major order.

    Attributes:
        row: [E] row of each edge.
        column: [E] column of each edge.
    """

    row: Tensor
    column: Tensor
    indptr: Tensor
    column_indptr: Tensor
    column_rows: Tensor
    by_column: Tensor

    def __init__(self, row: Tensor, column: Tensor, shape: tuple[int, int]) -> None:
        """Of int64 rows in rising order and columns."""
        super().__init__()
        self.shape = shape
        by_column = torch.argsort(column, stable=True)
        parts = {
            "row": row,
            "column": column,
            "indptr": _indptr(row, shape[0]),
            "column_indptr": _indptr(column, shape[1]),
            "column_rows": row[by_column],
            "by_column": by_column,
        }
        for name, part in parts.items():
            self.register_buffer(name, part, persistent=False)

    @classmethod
    def of(cls, matrix: sp.csr_matrix) -> EdgePattern:
        """The non-zeros of a matrix."""
        edges = sp.csr_matrix(matrix).tocoo()
        row, column = (torch.from_numpy(part.astype(np.int64)) for part in (edges.row, edges.col))
        return cls(row, column, matrix.shape)

    def product(self, values: Tensor, dense: Tensor) -> Tensor:
        """`M @ dense`: [C, D] -> [R, D], differentiable in both.

        Args:
            values: [E] of M.
            dense: [C, D].
        """
        product: Tensor = _PatternProduct.apply(values, dense, self, False)  # type: ignore[no-untyped-call]
        return product

    def transposed_product(self, values: Tensor, dense: Tensor) -> Tensor:
        """`M.T @ dense`: [R, D] -> [C, D], differentiable in both."""
        product: Tensor = _PatternProduct.apply(values, dense, self, True)  # type: ignore[no-untyped-call]
        return product

    def dots(self, left: Tensor, right: Tensor) -> Tensor:
        """[E] inner products of `left[row]` and `right[column]`, differentiable in both, [R, D] and [C, D]."""
        products: Tensor = _PatternDots.apply(left, right, self)  # type: ignore[no-untyped-call]
        return products

    def softmax_in_rows(self, logits: Tensor) -> Tensor:
        """[E] softmax over the edges of each row."""
        return _segment_softmax(logits, self.row, self.shape[0])

    def softmax_in_columns(self, logits: Tensor) -> Tensor:
        """[E] softmax over the edges of each column."""
        return _segment_softmax(logits, self.column, self.shape[1])

    def sums(self, values: Tensor, dense: Tensor, transposed: bool) -> Tensor:
        """`product` or `transposed_product` outside autograd."""
        if transposed:
            return _weighted_sums(dense, self.column_indptr, self.column_rows, values[self.by_column])
        return _weighted_sums(dense, self.indptr, self.column, values)

    def edge_dots(self, left: Tensor, right: Tensor) -> Tensor:
        """`dots` outside autograd; no edge's vectors are copied."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")  # what is used is tested
            positions = torch.sparse_csr_tensor(
                self.indptr, self.column, left.new_zeros(len(self.column)), self.shape, check_invariants=False
            )
        products: Tensor = torch.sparse.sampled_addmm(positions, left.detach(), right.detach().T).values()
        return products


class _PatternProduct(torch.autograd.Function):
    """The gradients of a product are the transposed product and the inner products on the edges."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dense: Tensor, pattern: EdgePattern, transposed: bool) -> Tensor:
        ctx.pattern, ctx.transposed = pattern, transposed
        ctx.save_for_backward(values, dense)
        return pattern.sums(values, dense, transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        values, dense = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        left, right = (dense, gradient) if ctx.transposed else (gradient, dense)
        of_values = ctx.pattern.edge_dots(left, right) if ctx.needs_input_grad[0] else None
        of_dense = ctx.pattern.sums(values, gradient, not ctx.transposed) if ctx.needs_input_grad[1] else None
        return of_values, of_dense, None, None


class _PatternDots(torch.autograd.Function):
    """The gradients of inner products on the edges are products with the edges' gradients as values."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, pattern: EdgePattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(left, right)
        return pattern.edge_dots(left, right)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        left, right = ctx.saved_tensors
        values = gradients[0].contiguous()
        of_left = ctx.pattern.sums(values, right, False) if ctx.needs_input_grad[0] else None
        of_right = ctx.pattern.sums(values, left, True) if ctx.needs_input_grad[1] else None
        return of_left, of_right, None


def _indptr(index: Tensor, n: int) -> Tensor:
    """[n + 1] starts of each index in a sorted list of them."""
    return F.pad(torch.bincount(index, minlength=n).cumsum(0), (1, 0))


def _segment_softmax(logits: Tensor, segment: Tensor, n: int) -> Tensor:
    """Softmax over the entries of each segment."""
    top = logits.new_full((n,), -torch.inf).scatter_reduce(0, segment, logits.detach(), "amax")
    weight = (logits - top[segment]).exp()
    return weight / weight.new_zeros(n).index_add(0, segment, weight).index_select(0, segment)


def build_interaction_matrix(history: Histories, n_items: int) -> sp.csr_matrix:
    """Binary training matrix R, [U + 1, I + 1], float32; repeated pairs count once; row and column 0 are empty."""
    users = history.users()
    matrix = sp.csr_matrix(
        (np.ones(len(users), dtype=np.float32), (users, history.items)), shape=(history.n_users + 1, n_items + 1)
    )
    matrix.data[:] = 1.0  # duplicates were summed
    return matrix


def normalize_interactions(history: Histories, n_items: int) -> sp.csr_matrix:
    """`normalize_bipartite` of the training matrix, [U + 1, I + 1]."""
    return normalize_bipartite(build_interaction_matrix(history, n_items))


def normalize_bipartite(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """`B_ui = R_ui / sqrt(deg(u) deg(i))`: the upper right block of the symmetric user-item operator.

    The graph is bipartite, so `B` and its transpose are all of `D^-1/2 A D^-1/2`. A user or item without interactions
    has an empty row or column (RecBole adds 1e-7 to degrees instead; there is no edge to see the difference).

    Args:
        matrix: binary R, [U + 1, I + 1].
    """
    edges = matrix.tocoo()
    user_degree = np.bincount(edges.row, minlength=matrix.shape[0]).astype(np.float64)
    item_degree = np.bincount(edges.col, minlength=matrix.shape[1]).astype(np.float64)
    weight = 1.0 / np.sqrt(user_degree[edges.row] * item_degree[edges.col])
    return sp.csr_matrix((weight.astype(np.float32), (edges.row, edges.col)), shape=matrix.shape)


def scale_rows(matrix: sp.csr_matrix, factor: np.ndarray) -> sp.csr_matrix:
    """Each row times its factor, float32."""
    scaled = matrix.copy()
    scaled.data = (matrix.data * np.repeat(factor, np.diff(matrix.indptr))).astype(np.float32)
    return scaled
