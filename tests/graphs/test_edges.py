from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.graphs.edges import EdgePattern
from hellm_recbole.graphs.sparse import normalize_interactions
from hellm_recbole.types import Histories

N_USERS, N_ITEMS = 4, 5
# user 4 and item 5 have no interaction; (1, 2) occurs twice
USER, ITEM = np.array([1, 1, 1, 2, 2, 3]), np.array([1, 2, 2, 2, 3, 4])
HISTORY = Histories.from_pairs(USER, ITEM, N_USERS)
PATTERN = EdgePattern.from_matrix(normalize_interactions(HISTORY, N_ITEMS))
N_EDGES = len(PATTERN.row)


def build_dense(values: torch.Tensor, elsewhere: float = 0.0) -> torch.Tensor:
    """Build a dense matrix from the values of the edges; `elsewhere` is the value of all other entries."""
    return torch.full(PATTERN.shape, elsewhere).index_put((PATTERN.row, PATTERN.column), values)


def take_edges(dense: torch.Tensor) -> torch.Tensor:
    """Take the [E] entries of a dense matrix at the edges."""
    return dense[PATTERN.row, PATTERN.column]


# Method -> our function and the dense formula, of the values, the row vectors and the column vectors.
FORMS: dict[str, tuple[Any, Any]] = {
    "multiply": (lambda v, x, y: PATTERN.multiply(v, y), lambda v, x, y: build_dense(v) @ y),
    "multiply_transposed": (lambda v, x, y: PATTERN.multiply_transposed(v, x), lambda v, x, y: build_dense(v).T @ x),
    "compute_dots": (lambda v, x, y: PATTERN.compute_dots(x, y), lambda v, x, y: take_edges(x @ y.T)),
    "compute_row_softmax": (
        lambda v, x, y: PATTERN.compute_row_softmax(v),
        lambda v, x, y: take_edges(build_dense(v, -1e30).softmax(dim=1)),
    ),
    "compute_column_softmax": (
        lambda v, x, y: PATTERN.compute_column_softmax(v),
        lambda v, x, y: take_edges(build_dense(v, -1e30).softmax(dim=0)),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_learned_edges_and_their_gradients_equal_the_dense_formula(form: str) -> None:
    torch.manual_seed(2)
    found = []
    values = [torch.randn(shape) for shape in ((N_EDGES,), (N_USERS + 1, 3), (N_ITEMS + 1, 3))]
    for apply in FORMS[form]:
        arguments = [value.clone().requires_grad_() for value in values]
        out = apply(*arguments)
        (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
        found.append([out, *(argument.grad for argument in arguments)])
    for fast, dense in zip(*found, strict=True):
        assert (fast is None) == (dense is None)
        if fast is not None:
            assert torch.allclose(fast, dense, atol=1e-6)


def test_softmax_of_large_logits_stays_finite() -> None:
    logits = torch.full((N_EDGES,), 1e4)
    sums = torch.zeros(N_USERS + 1).index_add(0, PATTERN.row, PATTERN.compute_row_softmax(logits))
    assert torch.allclose(sums[PATTERN.row.unique()], torch.ones(1))


def test_edges_that_are_left_out_of_a_softmax_get_zero_and_take_no_share() -> None:
    torch.manual_seed(2)
    logits = torch.randn(N_EDGES, requires_grad=True)
    kept = torch.tensor([True, False, True, False, True])  # edges 1-1, 1-2, 2-2, 2-3, 3-4; item 3 keeps none
    weight = torch.linspace(-1, 2, N_EDGES)
    for compute, axis in ((PATTERN.compute_row_softmax, 1), (PATTERN.compute_column_softmax, 0)):
        found = compute(logits, kept)
        dense = build_dense(logits, -1e30).masked_fill(build_dense((~kept).float()) > 0, -1e30).softmax(dim=axis)
        expected = take_edges(dense) * kept
        assert torch.allclose(found, expected, atol=1e-6)
        gradients = [torch.autograd.grad((out * weight).sum(), [logits])[0] for out in (found, expected)]
        assert torch.allclose(*gradients, atol=1e-6)
        assert torch.equal(compute(logits, torch.ones_like(kept)), compute(logits))
