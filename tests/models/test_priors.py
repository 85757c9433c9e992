"""Priors against slow loops over users, history items and items."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hellm_recbole.data.split import Split
from hellm_recbole.graphs.item_graphs import build_cooccurrence, build_transitions
from hellm_recbole.models.priors import CountPrior, FeaturePrior
from hellm_recbole.types import Histories

FLOOR = 1e-3


def compute_text_scores_slowly(features: np.ndarray, history: list[int], decay: float) -> list[float]:
    """Compute cos(x_j, mean of the history's x with weights decay^s) for each item j, x being centred features."""
    centred = features[1:].astype(np.float64) - features[1:].astype(np.float64).mean(axis=0)
    weights = [decay**s for s in range(len(history))]
    query = sum(w * centred[i - 1] for w, i in zip(weights, reversed(history), strict=True)) / sum(weights)
    return [float(x @ query / math.sqrt((x @ x) * (query @ query))) for x in centred]


def test_feature_prior_equals_a_loop(toy_split: Split) -> None:
    user = np.array([3, 1, 50])
    found = FeaturePrior(toy_split.features["text"], 0.6).compute(user, toy_split.train)
    assert (found.dtype, found.shape) == (np.float32, (3, toy_split.n_items))
    for row, number in zip(found, user, strict=True):
        expected = compute_text_scores_slowly(
            toy_split.features["text"], toy_split.train.get_items(int(number)).tolist(), 0.6
        )
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_counts_equal_a_loop_at_test_with_the_history_of_the_phase(toy_split: Split) -> None:
    seen = toy_split.make_test_history()
    for similarity, decay in (
        (build_cooccurrence(toy_split.train, toy_split.n_items), 0.7),
        (build_transitions(toy_split.train, toy_split.n_items, "symmetric"), 0.3),
    ):
        found = CountPrior(similarity, decay, FLOOR).compute(np.array([7, 2]), seen)
        dense = similarity.toarray()
        for row, number in zip(found, (7, 2), strict=True):
            items = seen.get_items(number).tolist()
            assert len(items) == len(toy_split.train.get_items(number)) + 1
            sums = sum(decay**s * dense[item - 1] for s, item in enumerate(reversed(items)))
            np.testing.assert_allclose(row, np.log(sums + FLOOR), rtol=1e-6)


def test_a_user_without_history_has_no_preference(toy_split: Split) -> None:
    empty = Histories.from_pairs(np.array([1]), np.array([4]), 2)
    text = FeaturePrior(toy_split.features["text"], 0.6).compute(np.array([2]), empty)
    counts = CountPrior(build_cooccurrence(toy_split.train, toy_split.n_items), 0.7, FLOOR).compute(
        np.array([2]), empty
    )
    assert not text.any()
    assert counts == pytest.approx(math.log(FLOOR))


def test_an_item_with_mean_features_scores_zero() -> None:
    features = np.array([[0, 0], [1, 0], [-1, 0], [0, 0]], dtype=np.float32)
    history = Histories.from_pairs(np.array([1]), np.array([1]), 1)
    assert FeaturePrior(features, 0.6).compute(np.array([1]), history).tolist() == [[1.0, -1.0, 0.0]]
