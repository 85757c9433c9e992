"""Hypergraph convolutions, computed as two sparse products without a user-user or item-item matrix.

A hypergraph has an incidence matrix H (nodes by hyperedges). `H H^T` counts the hyperedges that two nodes share.
Multiplying by `H^T` and then by `H` needs two products with the incidence matrix. The matrix `H H^T` has many more
non-zeros than H (on Amazon Beauty 5.3 million instead of 0.15 million), so it is never computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from hellm_recbole.graphs.neighbors import IndexArray, list_neighbor_edges
from hellm_recbole.graphs.sparse import SparseOperator, build_interaction_matrix, scale_rows
from hellm_recbole.types import BoolArray, FloatArray, Histories


class HypergraphOperator(nn.Module):
    """The linear operator `X -> left (right^T X) - diagonal * X`, [N, D] -> [N, D], for N nodes and E hyperedges.

    Attributes:
        left: [N, E] incidence matrix with scaled rows.
        right: [N, E] incidence matrix; the same object as `left` if the operator is symmetric.
        diagonal: [N, 1] diagonal to subtract; None if nothing is subtracted.
    """

    diagonal: Tensor | None

    def __init__(self, left: SparseOperator, right: SparseOperator, diagonal: Tensor | None) -> None:
        super().__init__()
        self.left, self.right = left, right
        self.register_buffer("diagonal", diagonal, persistent=False)  # [N, 1]

    def forward(self, nodes: Tensor) -> Tensor:
        """Compute one convolution of the node vectors, [N, D] -> [N, D]."""
        convolved: Tensor = _Convolution.apply(nodes, self, None)  # type: ignore[no-untyped-call]
        return convolved

    def convolve_rows(self, nodes: Tensor, rows: Tensor) -> Tensor:
        """Compute only the given rows of one convolution.

        Args:
            nodes: [N, D] node vectors.
            rows: [B] distinct nodes.

        Returns:
            [B, D] convolved vectors of these nodes.
        """
        convolved: Tensor = _Convolution.apply(nodes, self, rows)  # type: ignore[no-untyped-call]
        return convolved


class _Convolution(torch.autograd.Function):
    """All rows of a convolution, or the given ones; its gradient is a convolution with the transposed operator."""

    @staticmethod
    def forward(ctx: Any, nodes: Tensor, operator: HypergraphOperator, rows: Tensor | None) -> Tensor:
        ctx.operator = operator
        ctx.save_for_backward(rows)
        hyperedges = operator.right.transpose(nodes)
        left = operator.left.matrix
        convolved: Tensor = left(hyperedges) if rows is None else left.compute_product_rows(hyperedges, rows)
        diagonal = operator.diagonal
        if diagonal is None:
            return convolved
        if rows is not None:
            diagonal, nodes = diagonal.index_select(0, rows), nodes.index_select(0, rows)
        return convolved.addcmul_(diagonal.to(nodes.dtype), nodes, value=-1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        operator, gradient = ctx.operator, gradients[0].contiguous()
        left, diagonal = operator.left.transpose, operator.diagonal
        nodes_gradient: Tensor = operator.right.matrix(
            left(gradient) if rows is None else left.multiply_nonzero_rows(gradient, rows)
        )
        if diagonal is not None and rows is None:
            nodes_gradient -= diagonal.to(gradient.dtype) * gradient
        elif diagonal is not None:
            nodes_gradient[rows] -= diagonal.index_select(0, rows).to(gradient.dtype) * gradient
        return nodes_gradient, None, None


class WeightedHypergraph(nn.Module):
    """The hypergraph of users with a weight for each hyperedge, `C = R W R^T` with W diagonal (HeLLM Eq. 1 and 2).

    With weights of 1 it is the operator of `build_user_hypergraph`. The weights are an argument, with gradient; C is
    never computed, and neither is its gradient.

    Args:
        incidence: binary R, [U + 1, I + 1].
        normalization: `row` or `symmetric`, see `build_user_hypergraph`.

    Attributes:
        item_degree: [I + 1] number of users of each hyperedge.
    """

    item_degree: Tensor

    def __init__(self, incidence: sp.csr_matrix, normalization: str) -> None:
        super().__init__()
        self.incidence, self.normalization = SparseOperator(incidence), normalization
        degree = np.bincount(incidence.indices, minlength=incidence.shape[1])
        # Whole numbers, which are exact: a conversion of the module to half precision does not change them.
        self.register_buffer("item_degree", torch.from_numpy(degree), persistent=False)

    def apply_weights(self, weights: Tensor) -> WeightedConvolution:
        """Normalise the operator for given weights, once for all layers.

        Args:
            weights: [I + 1] positive weights w of the hyperedges.

        Returns:
            Convolution, differentiable in its nodes and in the weights.
        """
        own = torch.stack([weights, weights * (self.item_degree - 1)], dim=1)  # [I + 1, 2]
        diagonal, others = self.incidence(own).unbind(dim=1)  # [U + 1] sum_i R_ui w_i, and sum_i R_ui w_i (deg_i - 1)
        if self.normalization == "symmetric":
            root = _compute_safe_power(diagonal + others, -0.5)
            return WeightedConvolution(self.incidence, weights.unsqueeze(1), root, root, None)
        inverse = _compute_safe_power(others, -1.0)
        return WeightedConvolution(self.incidence, weights.unsqueeze(1), None, inverse, inverse * diagonal.unsqueeze(1))


@dataclass(frozen=True)
class WeightedConvolution:
    """The linear operator `X -> after * (R (w * (R^T (before * X)))) - diagonal * X`, [N, D] -> [N, D].

    Attributes:
        incidence: R.
        weights: [E, 1] weights w of the hyperedges.
        before: [N, 1] factors of the nodes before the products; None for 1.
        after: [N, 1] factors of the nodes after the products.
        diagonal: [N, 1] diagonal to subtract; None if nothing is subtracted.
    """

    incidence: SparseOperator
    weights: Tensor
    before: Tensor | None
    after: Tensor
    diagonal: Tensor | None

    def __call__(self, nodes: Tensor) -> Tensor:
        """Compute one convolution of the [N, D] node vectors, in their number type."""
        product: Tensor = self.after.to(nodes.dtype) * self.incidence(self._collect(nodes))
        return product if self.diagonal is None else product - self.diagonal.to(nodes.dtype) * nodes

    def convolve_rows(self, nodes: Tensor, rows: Tensor) -> Tensor:
        """Compute only the rows of the [B] distinct nodes `rows` of one convolution, [N, D] -> [B, D]."""
        product = self.incidence.multiply_rows(self._collect(nodes), rows)
        product = self.after.index_select(0, rows).to(nodes.dtype) * product
        if self.diagonal is None:
            return product
        return product - self.diagonal.index_select(0, rows).to(nodes.dtype) * nodes.index_select(0, rows)

    def _collect(self, nodes: Tensor) -> Tensor:
        """Compute the weighted [E, D] sums of the nodes of each hyperedge."""
        scaled = nodes if self.before is None else self.before.to(nodes.dtype) * nodes
        return self.weights.to(nodes.dtype) * self.incidence.multiply_transposed(scaled)


def _compute_safe_power(values: Tensor, exponent: float) -> Tensor:
    """Compute the power of [N] values as [N, 1]; where a value is 0, the power and its gradient are 0."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).pow(exponent), 0.0).unsqueeze(1)


def build_user_hypergraph(history: Histories, n_items: int, normalization: str) -> HypergraphOperator:
    """Build the hypergraph of users, with one hyperedge for each item (HeLLM Eq. 1 and 2).

    The matrix `C = R R^T` counts the items that two users share.

    Args:
        history: training interactions.
        n_items: I.
        normalization: `row` or `symmetric`. `row` sets the diagonal of C to 0 and divides each row by its sum, as the
            released code does; a user who shares no item with another user has a zero row. `symmetric` is
            `D^-1/2 C D^-1/2` with the diagonal of C, the Laplacian form of the paper.

    Returns:
        Operator on [U + 1, D] user vectors.
    """
    incidence = build_interaction_matrix(history, n_items)
    user_degree = np.asarray(incidence.sum(axis=1), dtype=np.float64).ravel()  # [U + 1], the diagonal of C
    item_degree = np.asarray(incidence.sum(axis=0), dtype=np.float64).ravel()
    row_sum = incidence @ item_degree
    if normalization == "symmetric":
        scaled = SparseOperator(scale_rows(incidence, _compute_power(row_sum, -0.5)))
        return HypergraphOperator(scaled, scaled, None)
    inverse = _compute_power(row_sum - user_degree, -1.0)
    return HypergraphOperator(
        SparseOperator(scale_rows(incidence, inverse)),
        SparseOperator(incidence),
        torch.from_numpy((inverse * user_degree).astype(np.float32)).unsqueeze(1),
    )


def build_incidence(index: IndexArray, cosine: FloatArray, covered: BoolArray | None = None) -> sp.csr_matrix:
    """Build the binary [I + 1, I + 1] neighbour matrix: entry (i, j) is 1 if j is a neighbour of i.

    Row 0 and column 0 (padding) are empty. A neighbour with a cosine of zero or less is left out. In the released code,
    such an entry keeps its similarity while the others become 1, so that it is 0 for an item without features.

    Args:
        index: [n, k] neighbours of each item that has some; item numbers start at 0.
        cosine: [n, k] cosines of each item with its neighbours.
        covered: [I] whether an item has neighbours; None if all have, n = I.
    """
    n_items = len(index) if covered is None else len(covered)
    row, column = list_neighbor_edges(index, covered)
    positive = cosine.ravel() > 0
    ones = np.ones(int(positive.sum()), dtype=np.float32)
    return sp.csr_matrix((ones, (row[positive], column[positive])), shape=(n_items + 1, n_items + 1))


def build_item_hypergraph(incidences: Sequence[sp.csr_matrix], hyperedges: str) -> HypergraphOperator:
    """Build the hypergraph of items, with one hyperedge for each item and modality (HeLLM Eq. 4 and 5).

    The operator is `S = D^-1/2 G D^-1/2` with `G = H H^T`. H contains the incidence matrices of all modalities next to
    each other. The diagonal of G is kept.

    Args:
        incidences: [I + 1, I + 1] neighbour matrix of each modality, from `build_incidence`.
        hyperedges: `listed_by` or `neighbors`. With `listed_by`, hyperedge j contains the items that list j as a
            neighbour, as in the released code. With `neighbors`, it contains the neighbours of j, as in the paper.

    Returns:
        Operator on [I + 1, D] item vectors.
    """
    blocks = [matrix if hyperedges == "listed_by" else matrix.T for matrix in incidences]
    incidence = sp.csr_matrix(sp.hstack(blocks))  # [I + 1, modalities x (I + 1)]
    row_sum = incidence @ np.asarray(incidence.sum(axis=0), dtype=np.float64).ravel()
    scaled = SparseOperator(scale_rows(incidence, _compute_power(row_sum, -0.5)))
    return HypergraphOperator(scaled, scaled, None)


def _compute_power(values: np.ndarray, exponent: float) -> np.ndarray:
    """Compute the power of each value; the result is 0 where the value is 0."""
    return np.where(values > 0, np.where(values > 0, values, 1.0) ** exponent, 0.0)
