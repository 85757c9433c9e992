from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.graphs.hypergraph import (
    WeightedHypergraph,
    build_incidence,
    build_item_hypergraph,
    build_user_hypergraph,
)
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


def compute_weighted_convolutions(
    dense: torch.Tensor, weights: torch.Tensor, nodes: torch.Tensor, normalization: str, n_layers: int
) -> torch.Tensor:
    """Convolve with the dense reference; `dense` is R with padding."""
    operator = slow.user_operator(dense, normalization, weights)
    for _ in range(n_layers):
        nodes = operator @ nodes
    return nodes


@pytest.mark.parametrize("rows", [None, [7, 2, 9]])
@pytest.mark.parametrize("normalization", ["row", "symmetric"])
@pytest.mark.parametrize("seed", range(6))
def test_weighted_hyperedges_and_both_gradients_equal_the_dense_reference_in_double_precision(
    seed: int, normalization: str, rows: list[int] | None
) -> None:
    incidence = build_interaction_matrix(draw_history(seed, 19, 11), 11)
    torch.manual_seed(seed)
    nodes = torch.randn(20, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(12, dtype=torch.float64).exp().requires_grad_()
    convolve = WeightedHypergraph(incidence, normalization).apply_weights(weights)
    chosen = torch.arange(20) if rows is None else torch.tensor(rows)
    found = convolve(convolve(nodes)) if rows is None else convolve.convolve_rows(convolve(nodes), chosen)
    dense = torch.from_numpy(incidence.toarray()).double()
    expected = compute_weighted_convolutions(dense, weights, nodes, normalization, 2)[chosen]
    assert torch.allclose(found, expected, rtol=1e-11, atol=1e-13)
    weight = torch.randn_like(found)
    found_gradients, expected_gradients = (
        torch.autograd.grad((out * weight).sum(), [nodes, weights]) for out in (found, expected)
    )
    for got, wanted in zip(found_gradients, expected_gradients, strict=True):
        assert wanted.abs().max() > 1e-3
        assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("normalization", ["row", "symmetric"])
def test_weights_of_one_give_the_operator_without_weights(normalization: str) -> None:
    history = draw_history(3)
    weighted = WeightedHypergraph(build_interaction_matrix(history, 7), normalization).apply_weights(torch.ones(8))
    nodes = torch.randn(10, 4)
    expected = build_user_hypergraph(history, 7, normalization)(nodes)
    assert expected.abs().max() > 0.1
    assert torch.allclose(weighted(nodes), expected, rtol=1e-6, atol=1e-6)


def test_a_common_factor_of_the_weights_changes_nothing_and_one_weight_does() -> None:
    hypergraph = WeightedHypergraph(build_interaction_matrix(draw_history(3), 7), "row")
    nodes, weights = torch.randn(10, 4, dtype=torch.float64), torch.rand(8, dtype=torch.float64) + 0.5
    convolved = hypergraph.apply_weights(weights)(nodes)
    assert torch.allclose(hypergraph.apply_weights(3.0 * weights)(nodes), convolved, rtol=1e-12)
    weights[2] *= 5.0
    assert not torch.allclose(hypergraph.apply_weights(weights)(nodes), convolved, rtol=1e-3)


def test_users_without_shared_items_have_a_zero_row_and_finite_gradients() -> None:
    pairs = np.array([[1, 1], [2, 1], [3, 2]])  # user 3 alone has item 2, user 4 has nothing
    history = Histories.from_pairs(pairs[:, 0], pairs[:, 1], 4)
    nodes, weights = torch.randn(5, 3, requires_grad=True), torch.ones(4, requires_grad=True)
    convolved = WeightedHypergraph(build_interaction_matrix(history, 3), "row").apply_weights(weights)(nodes)
    assert torch.allclose(convolved[[1, 2]], nodes[[2, 1]])
    assert not convolved[3:].any()
    convolved.square().sum().backward()
    assert nodes.grad is not None
    assert weights.grad is not None
    assert torch.isfinite(nodes.grad).all()
    assert torch.isfinite(weights.grad).all()


def test_items_without_features_are_in_no_hyperedge() -> None:
    features = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32) + 3.0
    covered = np.array([True, True, False, True, True, False])
    index = np.flatnonzero(covered)[find_nearest_neighbors(features[covered], 3)[0]]
    incidence = build_incidence(index, np.ones((4, 3), dtype=np.float32), covered)
    assert incidence.shape == (7, 7)
    assert np.asarray(incidence.sum(axis=1)).ravel().tolist() == [0, 3, 3, 0, 3, 3, 0]
    assert not incidence[:, [0, 3, 6]].toarray().any()
    assert (incidence.diagonal()[[1, 2, 4, 5]] == 1).all()
