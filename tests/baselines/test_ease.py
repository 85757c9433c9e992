"""EASE against its definition: the minimum of the penalised squared error under a diagonal of zeros."""

from __future__ import annotations

import numpy as np
import torch

from hellm_recbole.baselines.ease import EASE, EASESettings, compute_weights
from hellm_recbole.graphs.interactions import build_interactions
from hellm_recbole.types import QueryBatch
from tests.baselines.small import N_USERS, build_train_data


def solve_by_column(counts: np.ndarray, l2_weight: float) -> np.ndarray:
    """Solve a ridge regression of each item on all others, which is Eq. 1 to 3 column by column."""
    n_items = counts.shape[1]
    weights = np.zeros((n_items, n_items))
    for item in range(n_items):
        others = [one for one in range(n_items) if one != item]
        gram = counts[:, others].T @ counts[:, others] + l2_weight * np.eye(len(others))
        weights[others, item] = np.linalg.solve(gram, counts[:, others].T @ counts[:, item])
    return weights


def test_weights_and_scores_equal_those_of_ridge_regressions() -> None:
    data = build_train_data()
    interactions = build_interactions(data.history, data.n_items)
    counts = interactions.toarray().astype(np.float64)
    expected = solve_by_column(counts, 3.0)
    np.testing.assert_allclose(compute_weights(interactions, 3.0), expected, rtol=1e-4, atol=1e-6)
    users = torch.arange(1, N_USERS + 1)
    found = EASE.build(EASESettings(l2_weight=3.0), data).score(QueryBatch(users, torch.empty(N_USERS, 0)))
    np.testing.assert_allclose(found.numpy(), (counts @ expected)[1:, 1:], rtol=1e-4, atol=1e-6)
    assert found.dtype == torch.float32


def test_memory_grows_with_the_square_of_the_number_of_items() -> None:
    assert EASE.estimate_bytes(999) == 4 * 4 * 1000**2
