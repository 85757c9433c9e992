from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.evaluation.rating_auc import compute_auc, compute_user_auc


def compute_slowly(liked: np.ndarray, score: np.ndarray) -> float:
    """Compute the AUC by comparing each liked item with each disliked one."""
    wins = [
        1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0
        for i in np.flatnonzero(liked)
        for j in np.flatnonzero(~liked)
    ]
    return sum(wins) / len(wins)


def test_auc_equals_a_slow_loop_and_scikit_learn_on_100_random_cases_with_ties() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    for case in range(100):
        rng = np.random.default_rng(case)
        liked = rng.random(25) < rng.uniform(0.2, 0.8)
        liked[:2] = [True, False]
        score = rng.integers(0, 8, 25).astype(np.float64)
        found = compute_auc(liked, score)
        assert found == pytest.approx(compute_slowly(liked, score), abs=1e-12)
        assert found == pytest.approx(metrics.roc_auc_score(liked, score), abs=1e-12)


def test_user_auc_equals_a_slow_loop_and_leaves_out_users_with_one_item_or_one_class() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    for case in range(100):
        rng = np.random.default_rng(case)
        user = rng.integers(0, 15, 60).astype(str)
        liked, score = rng.random(60) < 0.5, rng.integers(0, 5, 60).astype(np.float32)
        groups = {name: np.flatnonzero(user == name) for name in user}
        both = [rows for rows in groups.values() if 0 < liked[rows].sum() < len(rows)]
        found = compute_user_auc(user, liked, score)
        assert found.mean == pytest.approx(np.mean([metrics.roc_auc_score(liked[r], score[r]) for r in both]))
        assert found.n_users == len(both)
        assert found.n_single == sum(len(rows) == 1 for rows in groups.values())
        assert found.n_users + found.n_single + found.n_one_class == len(groups)


def test_one_class_and_nothing_have_no_auc() -> None:
    assert compute_auc(np.array([True, True]), np.array([1.0, 2.0])) is None
    assert compute_user_auc(np.array([1, 1, 2]), np.ones(3, dtype=bool), np.arange(3)).mean is None
    empty = np.array([], dtype=bool)
    assert compute_auc(empty, np.array([])) is None
    assert compute_user_auc(np.array([]), empty, np.array([])).n_users == 0
