"""ItemKNN against a plain transcription of its equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from hellm_recbole.baselines import item_knn
from hellm_recbole.baselines.item_knn import ItemKNN, ItemKNNSettings, compute_similarity
from hellm_recbole.graphs.interactions import build_interactions
from hellm_recbole.types import QueryBatch
from tests.baselines.small import N_USERS, build_train_data


def score_slowly(counts: np.ndarray, k: int, shrink: float) -> np.ndarray:
    """Compute the scores of all users and items with loops over the pairs of items."""
    n_items = counts.shape[1]
    norm = [math.sqrt(sum(value * value for value in counts[:, item])) for item in range(n_items)]
    scores = np.zeros(counts.shape)
    for j in range(n_items):
        similarity = {
            i: float(counts[:, i] @ counts[:, j]) / (norm[i] * norm[j] + shrink + 1e-6)
            for i in range(n_items)
            if i != j
        }
        for i in sorted(similarity, key=lambda one: -similarity[one])[:k]:
            scores[:, j] += counts[:, i] * similarity[i]
    return scores


@pytest.mark.parametrize(("k", "shrink"), [(100, 0.0), (100, 7.5), (2, 0.0), (3, 20.0)])
def test_scores_equal_those_of_loops(k: int, shrink: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_knn, "BLOCK", 3)  # several blocks, the last one smaller
    rng = np.random.default_rng(2)
    counts = np.where(rng.random((9, 8)) < 0.7, rng.integers(1, 30, (9, 8)), 0).astype(np.float32)  # no equal cosines
    counts[:, 5] = 0  # an item without a user
    counts = np.pad(counts, ((1, 0), (1, 0)))
    interactions = sp.csr_matrix(counts)
    model = ItemKNN(interactions, compute_similarity(interactions, k, shrink))
    found = model.score(QueryBatch(torch.arange(1, 10), torch.empty(9, 0))).numpy()
    np.testing.assert_allclose(found, score_slowly(counts, k, shrink)[1:, 1:], rtol=1e-5, atol=1e-6)
    assert not found[:, 5].any()


def test_a_model_is_built_from_the_training_interactions() -> None:
    data = build_train_data()
    model = ItemKNN.build(ItemKNNSettings(k=100, shrink=0.0), data)
    found = model.score(QueryBatch(torch.arange(1, N_USERS + 1), torch.empty(N_USERS, 0))).numpy()
    counts = build_interactions(data.history, data.n_items).toarray()
    assert (counts == 2).any()  # a repeated pair
    np.testing.assert_allclose(found, score_slowly(counts, 100, 0.0)[1:, 1:], rtol=1e-5, atol=1e-6)


def test_no_item_is_its_own_neighbour_and_none_has_more_than_k() -> None:
    data = build_train_data()
    similarity = compute_similarity(build_interactions(data.history, data.n_items), 4, 0.0)
    assert not similarity.diagonal().any()
    assert max(similarity.tocsc().getnnz(axis=0)) == 4
