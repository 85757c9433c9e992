"""Recall and NDCG: by hand, and compared with a slow transcription of the definition."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.evaluation.metrics import average_metrics, compute_per_user


def compute_slowly(user: list[int], rank: list[int], k: int) -> tuple[float, float]:
    """Compute Recall and NDCG as they are defined, one user and one target at a time."""
    recalls, ndcgs = [], []
    for current in sorted(set(user)):
        ranks = [r for u, r in zip(user, rank, strict=True) if u == current]
        recalls.append(sum(r <= k for r in ranks) / len(ranks))
        dcg = sum(1 / math.log2(r + 1) for r in ranks if r <= k)
        ndcgs.append(dcg / sum(1 / math.log2(position + 1) for position in range(1, min(len(ranks), k) + 1)))
    return sum(recalls) / len(recalls), sum(ndcgs) / len(ndcgs)


def test_one_target_for_each_user_by_hand() -> None:
    values = average_metrics(np.array([1, 2, 3, 4]), np.array([1, 3, 10, 11]), [10])
    assert values["R@10"] == Fraction(3, 4)
    expected = (1 + Fraction(1, 2)) / 4 + Fraction(1) / 4 / Fraction(math.log2(11))
    assert values["N@10"] == pytest.approx(float(expected), rel=1e-15)


def test_the_ideal_dcg_of_several_targets_has_at_most_k_terms() -> None:
    users, values = compute_per_user(np.array([5, 5, 5]), np.array([1, 2, 40]), [2])
    assert users.tolist() == [5]
    assert values["R@2"][0] == pytest.approx(2 / 3)
    assert values["N@2"][0] == pytest.approx(1.0)  # both items of the top 2 are hits


def test_users_may_be_tokens_and_unordered() -> None:
    users, values = compute_per_user(np.array(["b", "a", "b"]), np.array([1, 9, 9]), [5])
    assert users.tolist() == ["a", "b"]
    assert values["R@5"].tolist() == [0.0, 0.5]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 30)), min_size=1, max_size=40),
    st.integers(1, 25),
)
def test_equals_the_slow_definition(pairs: list[tuple[int, int]], k: int) -> None:
    user, rank = [u for u, _ in pairs], [r for _, r in pairs]
    values = average_metrics(np.array(user), np.array(rank), [k])
    recall, ndcg = compute_slowly(user, rank, k)
    assert values[f"R@{k}"] == pytest.approx(recall, abs=1e-12)
    assert values[f"N@{k}"] == pytest.approx(ndcg, abs=1e-12)
