from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.graphs.hypergraph import build_incidence, build_item_hypergraph, build_user_hypergraph
from hellm_recbole.graphs.neighbors import find_nearest_neighbors
from hellm_recbole.graphs.sparse import build_interaction_matrix
from hellm_recbole.types import Histories
from tests.reference import hellm_pre as slow


def draw_history(seed: int, n_users: int = 9, n_items: int = 7) -> Histories:
    """Draw random interactions; some users and items have none."""
    rng = np.random.default_rng(seed)
    user, item = np.nonzero(rng.random((n_users - 1, n_items - 1)) < 0.3)
    return Histories.from_pairs(user + 1, item + 1, n_users)


def build_matrix(operator: torch.nn.Module, size: int) -> torch.Tensor:
    """Build the dense matrix of a linear operator."""
    return operator(torch.eye(size)).double()


@given(seed=st.integers(0, 200))
def test_the_user_operator_equals_the_dense_reference(seed: int) -> None:
    history = draw_history(seed)
    dense = torch.from_numpy(build_interaction_matrix(history, 7).toarray()).double()
    for normalization in ("row", "symmetric"):
        got = build_matrix(build_user_hypergraph(history, 7, normalization), 10)
        assert torch.allclose(got, slow.user_operator(dense, normalization), atol=1e-6)


@given(seed=st.integers(0, 200))
def test_rows_of_the_user_operator_sum_to_one_or_zero_and_its_diagonal_is_zero(seed: int) -> None:
    got = build_matrix(build_user_hypergraph(draw_history(seed), 7, "row"), 10)
    total = got.sum(dim=1)
    assert torch.all((total - 1).abs().minimum(total.abs()) < 1e-5)
    assert torch.allclose(torch.diag(got), torch.zeros(10, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("hyperedges", ["listed_by", "neighbors"])
@pytest.mark.parametrize("widths", [(6,), (6, 4), (6, 4, 5)])
def test_the_item_operator_equals_the_dense_reference(hyperedges: str, widths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(11, width)).astype(np.float32) for width in widths]
    incidences = [build_incidence(*find_nearest_neighbors(matrix, 4)) for matrix in features]
    got = build_matrix(build_item_hypergraph(incidences, hyperedges), 12)
    assert not got[0].any()
    assert not got[:, 0].any()
    expected = slow.item_operator([torch.from_numpy(matrix).double() for matrix in features], 4, hyperedges)
    assert torch.allclose(got[1:, 1:], expected, atol=1e-6)


def test_each_item_has_k_neighbours_and_one_of_them_is_the_item_itself() -> None:
    features = np.random.default_rng(1).normal(size=(30, 8)).astype(np.float32) + 3.0  # all cosines are positive
    incidence = build_incidence(*find_nearest_neighbors(features, 5))
    assert (np.asarray(incidence.sum(axis=1)).ravel()[1:] == 5).all()
    assert (incidence.diagonal()[1:] == 1).all()


def test_an_item_without_features_has_no_hyperedge() -> None:
    features = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32) + 3.0
    features[2] = 0.0
    operator = build_matrix(
        build_item_hypergraph([build_incidence(*find_nearest_neighbors(features, 3))], "listed_by"), 7
    )
    assert not operator[3].any()
    assert torch.isfinite(operator).all()


@pytest.mark.parametrize("normalization", ["row", "symmetric"])
def test_given_rows_of_a_convolution_equal_the_whole_convolution_bit_for_bit(normalization: str) -> None:
    operator = build_user_hypergraph(draw_history(3), 7, normalization)
    nodes = torch.randn(10, 4, requires_grad=True)
    rows, weight = torch.tensor([7, 2, 9]), torch.randn(3, 4)
    found, expected = operator.convolve_rows(nodes, rows), operator(nodes)[rows]
    assert torch.equal(found, expected)
    (found_gradient,), (expected_gradient,) = (
        torch.autograd.grad((out * weight).sum(), [nodes]) for out in (found, expected)
    )
    assert torch.equal(found_gradient, expected_gradient)


def test_the_gradient_is_a_product_with_the_transposed_operator() -> None:
    operator = build_user_hypergraph(draw_history(3), 7, "row")
    nodes = torch.randn(10, 4, requires_grad=True)
    weight = torch.randn(10, 4)
    (operator(nodes) * weight).sum().backward()
    assert nodes.grad is not None
    assert torch.allclose(nodes.grad, build_matrix(operator, 10).float().T @ weight, atol=1e-5)
