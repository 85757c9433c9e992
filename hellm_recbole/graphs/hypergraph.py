"""Hypergraphs as pairs of sparse products: no user-user and no item-item matrix is ever made.

A hypergraph with incidence H (nodes by hyperedges) connects two nodes as often as they share a hyperedge: `H H^T`.
Multiplying by `H^T` and then by `H` costs two products with the incidence, where `H H^T` would hold many times its
non-zeros (on Amazon Beauty 5.3 million against 0.15 million).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from hellm_recbole.graphs.sparse import SparseOperator, build_interaction_matrix, scale_rows
from hellm_recbole.types import FloatArray, Histories


class HypergraphOperator(nn.Module):
    """`X -> left (right^T X) - diagonal * X`, [N, D] -> [N, D].

    Attributes:
        left: [N, E] incidence with its rows scaled.
        right: [N, E] incidence; the same object as `left` where the operator is symmetric.
    """

    diagonal: Tensor | None

    def __init__(self, left: SparseOperator, right: SparseOperator, diagonal: Tensor | None) -> None:
        super().__init__()
        self.left, self.right = left, right
        self.register_buffer("diagonal", diagonal, persistent=False)  # [N, 1]

    def forward(self, nodes: Tensor) -> Tensor:
        """One convolution."""
        convolved: Tensor = _Convolution.apply(nodes, self, None)  # type: ignore[no-untyped-call]
        return convolved

    def of_rows(self, nodes: Tensor, rows: Tensor) -> Tensor:
        """The given distinct rows of one convolution, [N, D] -> [B, D]."""
        convolved: Tensor = _Convolution.apply(nodes, self, rows)  # type: ignore[no-untyped-call]
        return convolved


class _Convolution(torch.autograd.Function):
    """All rows of a convolution, or some; the gradient is a convolution with the transposed operator."""

    @staticmethod
    def forward(ctx: Any, nodes: Tensor, operator: HypergraphOperator, rows: Tensor | None) -> Tensor:
        ctx.operator = operator
        ctx.save_for_backward(rows)
        hyperedges = operator.right.columns(nodes)
        product = operator.left.rows
        mixed: Tensor = product(hyperedges) if rows is None else product.some(hyperedges, rows)
        diagonal = operator.diagonal
        if diagonal is None:
            return mixed
        if rows is not None:
            diagonal, nodes = diagonal.index_select(0, rows), nodes.index_select(0, rows)
        return mixed.addcmul_(diagonal.to(nodes.dtype), nodes, value=-1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        operator, gradient = ctx.operator, gradients[0].contiguous()
        product, diagonal = operator.left.columns, operator.diagonal
        of_nodes: Tensor = operator.right.rows(product(gradient) if rows is None else product.from_some(gradient, rows))
        if diagonal is not None and rows is None:
            of_nodes -= diagonal.to(gradient.dtype) * gradient
        elif diagonal is not None:
            of_nodes[rows] -= diagonal.index_select(0, rows).to(gradient.dtype) * gradient
        return of_nodes, None, None


def build_user_hypergraph(history: Histories, n_items: int, normalization: str) -> HypergraphOperator:
    """Users as nodes, items as hyperedges (HeLLM Eq. 1 and 2); `C = R R^T` counts the items two users share.

    Args:
        history: training interactions.
        n_items: I.
        normalization: `row` divides the rows of C without its diagonal by their sums, as the released code does; a user
            who shares no item has a zero row. `symmetric` is `D^-1/2 C D^-1/2` with the diagonal kept, the paper's
            Laplacian form.
    """
    incidence = build_interaction_matrix(history, n_items)
    user_degree = np.asarray(incidence.sum(axis=1), dtype=np.float64).ravel()  # [U + 1], the diagonal of C
    item_degree = np.asarray(incidence.sum(axis=0), dtype=np.float64).ravel()
    row_sum = incidence @ item_degree
    if normalization == "symmetric":
        scaled = SparseOperator(scale_rows(incidence, _power(row_sum, -0.5)))
        return HypergraphOperator(scaled, scaled, None)
    inverse = _power(row_sum - user_degree, -1.0)
    return HypergraphOperator(
        SparseOperator(scale_rows(incidence, inverse)),
        SparseOperator(incidence),
        torch.from_numpy((inverse * user_degree).astype(np.float32)).unsqueeze(1),
    )


def build_incidence(index: np.ndarray, cosine: FloatArray) -> sp.csr_matrix:
    """Binary [I + 1, I + 1] matrix: one at (i, j) where j is a neighbour of i; row and column 0 are empty.

    A neighbour with a cosine of zero or less is left out: the released code keeps its similarity where it writes a one
    for the others, which makes such an entry zero for items without features.

    Args:
        index: [I, k] rows of neighbours, from 0.
        cosine: [I, k].
    """
    n_items, k = index.shape
    row, column = np.repeat(np.arange(1, n_items + 1), k), index.ravel().astype(np.int64) + 1
    kept = cosine.ravel() > 0
    ones = np.ones(int(kept.sum()), dtype=np.float32)
    return sp.csr_matrix((ones, (row[kept], column[kept])), shape=(n_items + 1, n_items + 1))


def build_item_hypergraph(incidences: Sequence[sp.csr_matrix], hyperedges: str) -> HypergraphOperator:
    """Items as nodes, one hyperedge for each item and modality (HeLLM Eq. 4 and 5).

    `S = D^-1/2 G D^-1/2` with `G = H H^T` over the modalities' incidences side by side; the diagonal stays.

    Args:
        incidences: of each modality, from `build_incidence`.
        hyperedges: `listed_by` follows the released code: hyperedge j holds the items that list j as a neighbour.
            `neighbors` is the paper's: hyperedge j holds j's own neighbours.
    """
    turned = [matrix if hyperedges == "listed_by" else matrix.T for matrix in incidences]
    incidence = sp.csr_matrix(sp.hstack(turned))  # [I + 1, modalities x (I + 1)]
    row_sum = incidence @ np.asarray(incidence.sum(axis=0), dtype=np.float64).ravel()
    scaled = SparseOperator(scale_rows(incidence, _power(row_sum, -0.5)))
    return HypergraphOperator(scaled, scaled, None)


def _power(values: np.ndarray, exponent: float) -> np.ndarray:
    """Elementwise power, 0 where the value is 0."""
    return np.where(values > 0, np.where(values > 0, values, 1.0) ** exponent, 0.0)
