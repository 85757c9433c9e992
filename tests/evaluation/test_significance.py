"""Paired bootstrap and Holm's correction: by hand, their properties, and a comparison with SciPy."""

from __future__ import annotations

import inspect
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hellm_recbole.evaluation.significance import bootstrap_means, compute_p_value, correct_holm


def paired_bootstrap(a: np.ndarray, b: np.ndarray, n_resamples: int, seed: int) -> float:
    """Compute the two-sided p-value of equal means of two models, [U] values of the same users each."""
    difference = np.asarray(a, dtype=np.float64) - b
    return compute_p_value(float(difference.mean()), bootstrap_means(difference[:, None], n_resamples, seed)[:, 0])


def bootstrap_slowly(values: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Compute the resampled means one resample at a time, by indexing."""
    generator = np.random.default_rng(seed)
    return np.array(
        [values[generator.integers(len(values), size=len(values))].mean(axis=0) for _ in range(n_resamples)]
    )


def test_bootstrap_equals_slow_resampling_across_blocks() -> None:
    values = np.random.default_rng(0).random((50_000, 3))  # a block has 20 resamples, so 45 need three blocks
    np.testing.assert_allclose(bootstrap_means(values, 45, 3), bootstrap_slowly(values, 45, 3), rtol=0, atol=1e-12)


def test_every_column_has_the_same_resamples() -> None:
    values = np.random.default_rng(0).random((30, 2))
    both = bootstrap_means(values, 100, 1)
    np.testing.assert_array_equal(both, bootstrap_means(values, 100, 1))
    np.testing.assert_allclose(both[:, :1], bootstrap_means(values[:, :1], 100, 1), atol=1e-12)
    assert not np.array_equal(both, bootstrap_means(values, 100, 2))


def test_two_users_by_hand() -> None:
    # d_u = (0, 1), d = 1/2. d* is 0, 1/2, 1 with probability 1/4, 1/2, 1/4, so |d* - 1/2| >= 1/2 has probability 1/2.
    p = paired_bootstrap(np.array([0.0, 1.0]), np.array([0.0, 0.0]), 20_000, 5)
    assert p == pytest.approx(float(Fraction(1, 2)), abs=0.02)


def test_p_value_counts_both_sides() -> None:
    # d = 2. The resamples minus d are -2, 2, 1, 0: two of four are as extreme as d.
    assert compute_p_value(2.0, np.array([0.0, 4.0, 3.0, 2.0])) == float(Fraction(1 + 2, 1 + 4))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_equal_models_have_p_one(values: list[float]) -> None:
    array = np.array(values)
    assert paired_bootstrap(array, array.copy(), 50, 0) == 1.0


def test_a_constant_difference_has_the_smallest_p_value() -> None:
    a = np.random.default_rng(0).random(100)
    assert paired_bootstrap(a + 0.1, a, 999, 0) == pytest.approx(1 / 1000)


def test_two_sided_is_symmetric() -> None:
    a, b = np.random.default_rng(1).random((2, 200))
    assert paired_bootstrap(a, b, 500, 0) == paired_bootstrap(b, a, 500, 0)


def test_p_values_are_uniform_under_the_null_hypothesis() -> None:
    generator = np.random.default_rng(7)
    values = generator.random((400, 2, 150))
    p = [paired_bootstrap(a, b, 400, seed) for seed, (a, b) in enumerate(values)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_agrees_with_scipy() -> None:
    seed = (
        "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
    )  # its name before SciPy 1.15
    generator = np.random.default_rng(3)
    for shift in (0.0, 0.02, 0.05, 0.1):
        a, b = generator.random((2, 500))
        a = a + shift
        p = paired_bootstrap(a, b, 4000, 0)
        assert p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.03)
        found = stats.bootstrap((a - b,), np.mean, n_resamples=4000, method="percentile", **{seed: 0})
        low, high = found.confidence_interval
        assert (p < 0.05) == (not low <= 0 <= high)


def test_holm_by_hand() -> None:
    # By size: 0.005 x 4, 0.01 x 3, max(0.03, 0.03 x 2), max(0.06, 0.04 x 1). The result has the order of the input.
    adjusted = correct_holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02], rtol=0, atol=1e-15)


def test_holm_of_no_and_of_one_p_value() -> None:
    assert correct_holm(np.array([])).size == 0
    assert correct_holm(np.array([0.2])).tolist() == [0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_order(values: list[float]) -> None:
    raw = np.array(values)
    adjusted = correct_holm(raw)
    assert np.all(adjusted >= raw)
    assert np.all(adjusted <= np.minimum(1, raw * len(raw)) + 1e-15)
    order = np.argsort(raw, kind="stable")
    assert np.all(np.diff(adjusted[order]) >= 0)
