from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from hellm_recbole.graphs.propagation import propagate_mean, propagate_mean_rows
from hellm_recbole.graphs.sparse import SparseOperator, build_interaction_matrix, normalize_interactions
from hellm_recbole.types import Histories

N_USERS, N_ITEMS = 4, 5
# user 4 and item 5 have no interaction; (1, 2) occurs twice
USER, ITEM = np.array([1, 1, 1, 2, 2, 3]), np.array([1, 2, 2, 2, 3, 4])
HISTORY = Histories.from_pairs(USER, ITEM, N_USERS)


def build_dense_adjacency() -> torch.Tensor:
    """Build `D^-1/2 A D^-1/2`, entry by entry; users come first, then items."""
    size = N_USERS + 1 + N_ITEMS + 1
    a = torch.zeros(size, size, dtype=torch.float64)
    for u, i in {(int(u), int(i)) for u, i in zip(USER, ITEM, strict=True)}:
        a[u, N_USERS + 1 + i] = a[N_USERS + 1 + i, u] = 1.0
    degree = a.sum(dim=1)
    scale = torch.where(degree > 0, degree.clamp(min=1).rsqrt(), 0.0)
    return scale[:, None] * a * scale[None, :]


def test_interactions_are_binary_and_padding_is_empty() -> None:
    dense = build_interaction_matrix(HISTORY, N_ITEMS).toarray()
    assert dense.shape == (N_USERS + 1, N_ITEMS + 1)
    assert set(np.unique(dense)) == {0.0, 1.0}
    assert dense.sum() == 5
    assert not dense[0].any()
    assert not dense[:, 0].any()


def test_normalised_block_equals_the_dense_formula() -> None:
    block = normalize_interactions(HISTORY, N_ITEMS).toarray()
    assert np.allclose(block, build_dense_adjacency()[: N_USERS + 1, N_USERS + 1 :].numpy(), atol=1e-7)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_propagation_and_its_gradient_equal_the_dense_formula(n_layers: int) -> None:
    torch.manual_seed(1)
    user, item = torch.randn(N_USERS + 1, 3), torch.randn(N_ITEMS + 1, 3)
    weight = torch.randn(N_USERS + 1 + N_ITEMS + 1, 3)
    stacked = torch.cat([user, item]).double().requires_grad_()
    layer, layers = stacked, [stacked]
    for _ in range(n_layers):
        layer = build_dense_adjacency() @ layer
        layers.append(layer)
    expected = torch.stack(layers).mean(dim=0)
    (expected * weight).sum().backward()
    assert stacked.grad is not None

    user.requires_grad_()
    item.requires_grad_()
    got = torch.cat(propagate_mean(user, item, SparseOperator(normalize_interactions(HISTORY, N_ITEMS)), n_layers))
    (got * weight).sum().backward()
    assert user.grad is not None
    assert item.grad is not None
    assert torch.allclose(got.double(), expected, atol=1e-6)
    assert torch.allclose(torch.cat([user.grad, item.grad]).double(), stacked.grad, atol=1e-6)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("user_rows", "item_rows"), [([3, 1], [5, 4, 2]), ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]), ([4], [5])]
)
def test_propagation_of_given_rows_equals_the_whole_propagation_bit_for_bit(
    n_layers: int, user_rows: list[int], item_rows: list[int]
) -> None:
    torch.manual_seed(1)
    rows = torch.tensor(user_rows), torch.tensor(item_rows)
    tables = torch.randn(N_USERS + 1, 3).requires_grad_(), torch.randn(N_ITEMS + 1, 3).requires_grad_()
    weights = [torch.randn(len(part), 3) for part in rows]
    graph = SparseOperator(normalize_interactions(HISTORY, N_ITEMS))
    whole = propagate_mean(*tables, graph, n_layers)
    expected = [table[part] for table, part in zip(whole, rows, strict=True)]
    found = propagate_mean_rows(*tables, graph, n_layers, *rows)
    gradients = []
    for parts in (expected, found):
        total = sum((part * weight).sum() for part, weight in zip(parts, weights, strict=True))
        gradients.append(torch.autograd.grad(total, tables))
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    "block", [normalize_interactions(HISTORY, N_ITEMS), build_interaction_matrix(HISTORY, N_ITEMS)]
)
def test_a_product_computed_for_given_rows_or_from_given_rows_equals_the_whole_product(block: sp.csr_matrix) -> None:
    dense, rows, part = torch.randn(N_ITEMS + 1, 2), torch.tensor([2, 4, 1]), torch.randn(3, 2)
    operator = SparseOperator(block)
    assert torch.equal(operator.matrix.compute_product_rows(dense, rows), operator.matrix(dense)[rows])
    whole = torch.zeros(N_USERS + 1, 2).index_copy(0, rows, part)
    assert torch.equal(operator.transpose.multiply_nonzero_rows(part, rows), operator.transpose(whole))


@pytest.mark.parametrize(
    "block", [normalize_interactions(HISTORY, N_ITEMS), build_interaction_matrix(HISTORY, N_ITEMS)]
)
def test_an_operator_and_its_gradient_equal_the_dense_product(block: sp.csr_matrix) -> None:
    operator, matrix = SparseOperator(block), torch.from_numpy(block.toarray())
    x, weight = torch.randn(N_ITEMS + 1, 2, requires_grad=True), torch.randn(N_USERS + 1, 2)
    out = operator(x)
    (out * weight).sum().backward()
    assert x.grad is not None
    assert torch.allclose(out, matrix @ x, atol=1e-6)
    assert torch.allclose(x.grad, matrix.T @ weight, atol=1e-6)


@pytest.mark.parametrize(
    "block", [normalize_interactions(HISTORY, N_ITEMS), build_interaction_matrix(HISTORY, N_ITEMS)]
)
def test_transposed_products_and_products_of_given_rows_and_their_gradients_equal_the_dense_ones(
    block: sp.csr_matrix,
) -> None:
    operator, matrix = SparseOperator(block), torch.from_numpy(block.toarray())
    rows = torch.tensor([2, 4, 1])
    for multiply, expected, n_rows in (
        (operator.multiply_transposed, matrix.T, N_USERS + 1),
        (lambda x: operator.multiply_rows(x, rows), matrix[rows], N_ITEMS + 1),
    ):
        x = torch.randn(n_rows, 2, requires_grad=True)
        out = multiply(x)
        weight = torch.randn_like(out)
        (gradient,) = torch.autograd.grad((out * weight).sum(), [x])
        assert torch.allclose(out, expected @ x, atol=1e-6)
        assert torch.allclose(gradient, expected.T @ weight, atol=1e-6)
