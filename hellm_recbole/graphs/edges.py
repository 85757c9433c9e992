"""Sparse matrices with learned values on fixed edges, and their products with dense matrices.

No function here builds a dense matrix from a sparse one.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.graphs.sparse import multiply_csr


class EdgePattern(nn.Module):
    """The sparsity pattern of an [R, C] matrix M with learned values: E edges (non-zeros) in row-major order.

    Attributes:
        shape: (R, C).
        row: [E] row of each edge.
        column: [E] column of each edge.
        indptr: [R + 1] start of each row among the edges.
        column_order: [E] edge numbers in column-major order.
        column_indptr: [C + 1] start of each column in `column_order`.
        column_rows: [E] row of each edge, in column-major order.
    """

    row: Tensor
    column: Tensor
    indptr: Tensor
    column_indptr: Tensor
    column_rows: Tensor
    column_order: Tensor

    def __init__(self, row: Tensor, column: Tensor, shape: tuple[int, int]) -> None:
        """Build the pattern from its edges.

        Args:
            row: [E] int64 row of each edge, in ascending order.
            column: [E] int64 column of each edge.
            shape: (R, C).
        """
        super().__init__()
        self.shape = shape
        column_order = torch.argsort(column, stable=True)
        parts = {
            "row": row,
            "column": column,
            "indptr": _compute_starts(row, shape[0]),
            "column_indptr": _compute_starts(column, shape[1]),
            "column_rows": row[column_order],
            "column_order": column_order,
        }
        for name, part in parts.items():
            self.register_buffer(name, part, persistent=False)

    @classmethod
    def from_matrix(cls, matrix: sp.csr_matrix) -> EdgePattern:
        """Build the pattern of the stored non-zeros of a matrix."""
        edges = sp.csr_matrix(matrix).tocoo()
        row, column = (torch.from_numpy(part.astype(np.int64)) for part in (edges.row, edges.col))
        return cls(row, column, matrix.shape)

    def multiply(self, values: Tensor, dense: Tensor) -> Tensor:
        """Compute `M @ dense`, differentiable in both arguments.

        Args:
            values: [E] values of M on the edges.
            dense: [C, D] dense matrix.

        Returns:
            [R, D] product.
        """
        product: Tensor = _PatternProduct.apply(values, dense, self, False)  # type: ignore[no-untyped-call]
        return product

    def multiply_transposed(self, values: Tensor, dense: Tensor) -> Tensor:
        """Compute `M.T @ dense`, differentiable in both arguments.

        Args:
            values: [E] values of M on the edges.
            dense: [R, D] dense matrix.

        Returns:
            [C, D] product.
        """
        product: Tensor = _PatternProduct.apply(values, dense, self, True)  # type: ignore[no-untyped-call]
        return product

    def compute_dots(self, left: Tensor, right: Tensor) -> Tensor:
        """Compute the inner product of `left[row]` and `right[column]` for each edge, differentiable in both.

        Args:
            left: [R, D] vectors of the rows.
            right: [C, D] vectors of the columns.

        Returns:
            [E] inner products.
        """
        products: Tensor = _PatternDots.apply(left, right, self)  # type: ignore[no-untyped-call]
        return products

    def compute_row_softmax(self, logits: Tensor, kept: Tensor | None = None) -> Tensor:
        """Compute the softmax of the [E] logits over the edges of each row, [E].

        Args:
            logits: [E] logits.
            kept: [E] bool, edges that take part; the others get 0. None keeps all.
        """
        return _compute_segment_softmax(logits, self.row, self.shape[0], kept)

    def compute_column_softmax(self, logits: Tensor, kept: Tensor | None = None) -> Tensor:
        """Compute the softmax of the [E] logits over the edges of each column, [E]; see `compute_row_softmax`."""
        return _compute_segment_softmax(logits, self.column, self.shape[1], kept)

    def multiply_outside_autograd(self, values: Tensor, dense: Tensor, transposed: bool) -> Tensor:
        """Compute `M.T @ dense` if `transposed` is true, and `M @ dense` otherwise, outside autograd."""
        if transposed:
            return multiply_csr(dense, self.column_indptr, self.column_rows, values[self.column_order])
        return multiply_csr(dense, self.indptr, self.column, values)

    def compute_dots_outside_autograd(self, left: Tensor, right: Tensor) -> Tensor:
        """Compute `compute_dots` outside autograd, without a copy of the vectors for each edge."""
        with warnings.catch_warnings():
            # The first warning is about a beta feature that our tests cover. torch 2.11 gives the second one though the
            # check is switched off explicitly.
            for message in ("Sparse CSR tensor support is in beta", "Sparse invariant checks are implicitly disabled"):
                warnings.filterwarnings("ignore", message=message)
            pattern = torch.sparse_csr_tensor(
                self.indptr, self.column, left.new_zeros(len(self.column)), self.shape, check_invariants=False
            )
        products: Tensor = torch.sparse.sampled_addmm(pattern, left.detach(), right.detach().T).values()
        return products


class _PatternProduct(torch.autograd.Function):
    """The product of a learned sparse matrix and a dense one.

    The gradient of the dense matrix is the transposed product; that of the values is an inner product for each edge.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, dense: Tensor, pattern: EdgePattern, transposed: bool) -> Tensor:
        ctx.pattern, ctx.transposed = pattern, transposed
        ctx.save_for_backward(values, dense)
        return pattern.multiply_outside_autograd(values, dense, transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        values, dense = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        left, right = (dense, gradient) if ctx.transposed else (gradient, dense)
        values_gradient = ctx.pattern.compute_dots_outside_autograd(left, right) if ctx.needs_input_grad[0] else None
        dense_gradient = (
            ctx.pattern.multiply_outside_autograd(values, gradient, not ctx.transposed)
            if ctx.needs_input_grad[1]
            else None
        )
        return values_gradient, dense_gradient, None, None


class _PatternDots(torch.autograd.Function):
    """Inner products on the edges; their gradients are products with a sparse matrix of the edges' gradients."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, pattern: EdgePattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(left, right)
        return pattern.compute_dots_outside_autograd(left, right)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        left, right = ctx.saved_tensors
        values = gradients[0].contiguous()
        left_gradient = ctx.pattern.multiply_outside_autograd(values, right, False) if ctx.needs_input_grad[0] else None
        right_gradient = ctx.pattern.multiply_outside_autograd(values, left, True) if ctx.needs_input_grad[1] else None
        return left_gradient, right_gradient, None


def _compute_starts(index: Tensor, n_rows: int) -> Tensor:
    """Compute where each row starts among the edges sorted by row, [n_rows + 1], from the [E] row of each edge."""
    return F.pad(torch.bincount(index, minlength=n_rows).cumsum(0), (1, 0))


def _compute_segment_softmax(logits: Tensor, segment: Tensor, n_segments: int, kept: Tensor | None) -> Tensor:
    """Compute the softmax of the [E] logits over the entries of each segment, given the [E] segment of each entry.

    Entries that are not among the [E] `kept` get 0; a segment may have no other entry.
    """
    if kept is not None:
        logits = logits.masked_fill(~kept, -torch.inf)
    largest = logits.new_full((n_segments,), -torch.inf).scatter_reduce(0, segment, logits.detach(), "amax")
    if kept is not None:
        largest = largest.clamp(min=torch.finfo(largest.dtype).min)  # -inf - -inf is not a number
    weight = (logits - largest[segment]).exp()
    total = weight.new_zeros(n_segments).index_add(0, segment, weight).index_select(0, segment)
    if kept is not None:
        total = torch.where(kept, total, 1.0)
    return weight / total
