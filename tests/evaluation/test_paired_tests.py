"""Paired tests and corrections: by hand, slow loops, and a comparison with SciPy."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hellm_recbole.evaluation.paired_tests import (
    compute_effect_size,
    compute_randomisation_p,
    compute_t_p,
    compute_wilcoxon_p,
    correct_p_values,
)

TESTS = (lambda d: compute_randomisation_p(d, 99, 0), compute_wilcoxon_p, compute_t_p)


def make_cases() -> list[np.ndarray]:
    """Make 100 random columns of differences, half of them with many ties and zeros as in Recall."""
    generator = np.random.default_rng(11)
    cases = []
    for case in range(100):
        n_users = int(generator.integers(21, 80))  # fewer take SciPy long: it permutes them
        cases.append(generator.normal(0.1, 1, n_users) if case % 2 else generator.integers(-1, 2, n_users) * 0.5)
    return cases


def rank_slowly(values: np.ndarray) -> list[float]:
    """Rank values from 1; equal values get the mean of their ranks."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def test_randomisation_by_hand() -> None:
    # d_u = (1, 2, 3), d = 2. Of the 8 assignments of signs, +++ and --- have a mean as far from 0: p = 2 / 8.
    p = compute_randomisation_p(np.array([[1.0], [2.0], [3.0]]), 40_000, 3)
    assert p[0] == pytest.approx(float(Fraction(2, 8)), abs=0.01)
    # d_u = (1, 1, -1), d = 1/3: every assignment has a mean of 1/3 or 1 in size, so p = 1.
    assert compute_randomisation_p(np.array([[1.0], [1.0], [-1.0]]), 100, 3)[0] == 1.0


def test_randomisation_equals_a_slow_loop_across_blocks() -> None:
    values = np.random.default_rng(0).normal(0.003, 1, (300_000, 2))  # a block has 3 assignments
    generator, extreme = np.random.default_rng(5), np.zeros(2)
    for size in (3, 3, 1):
        signs = 2.0 * generator.integers(2, size=(size, len(values)), dtype=np.int8) - 1
        for one in signs:
            extreme += np.abs((one[:, None] * values).mean(axis=0)) >= np.abs(values.mean(axis=0))
    np.testing.assert_array_equal(compute_randomisation_p(values, 7, 5), (1 + extreme) / 8)


def test_randomisation_approaches_the_exact_test() -> None:
    for values in np.random.default_rng(2).normal(0.4, 1, (10, 8)):
        exact = np.mean(
            [abs(np.dot(signs, values)) >= abs(values.sum()) - 1e-12 for signs in product((-1, 1), repeat=8)]
        )
        assert compute_randomisation_p(values[:, None], 20_000, 1)[0] == pytest.approx(exact, abs=0.015)


def test_wilcoxon_by_hand() -> None:
    # Ranks 1, 2, 3, 4, all positive: W- = 0. Two of the 16 assignments of signs are as extreme: p = 1/8.
    assert compute_wilcoxon_p(np.array([[0.1], [0.4], [0.2], [0.3]]))[0] == float(Fraction(1, 8))
    # Ranks 1 (negative), 2, 3: W- = 1. W- is 0 or 1 for two of 8 assignments, and so is W+: p = 4/8.
    assert compute_wilcoxon_p(np.array([[-0.1], [0.4], [0.2]]))[0] == float(Fraction(4, 8))


def test_wilcoxon_equals_a_slow_transcription_and_scipy() -> None:
    for values in make_cases():
        p = compute_wilcoxon_p(values[:, None])[0]
        nonzero = values[values != 0]
        assert p == stats.wilcoxon(values, zero_method="wilcox").pvalue
        sizes = np.abs(nonzero)
        ranks, n = rank_slowly(sizes), len(nonzero)
        positive = sum(rank for rank, value in zip(ranks, nonzero, strict=True) if value > 0)
        ties = sum(int(count) ** 3 - int(count) for count in np.unique(sizes, return_counts=True)[1])
        variance = float(Fraction(n * (n + 1) * (2 * n + 1), 24) - Fraction(ties, 48))
        if len(values) > 50 or n < len(values):  # otherwise the p-value is exact
            z = (positive - n * (n + 1) / 4) / variance**0.5
            assert p == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-9)


def test_t_by_hand() -> None:
    # d_u = (1, 2, 3): d = 2, sd = 1, t = 2 sqrt(3). With 2 degrees of freedom, p = 1 - t / sqrt(t^2 + 2).
    t = 2 * 3**0.5
    assert compute_t_p(np.array([[1.0], [2.0], [3.0]]))[0] == pytest.approx(1 - t / (t**2 + 2) ** 0.5, rel=1e-12)


def test_t_and_effect_size_equal_scipy_and_a_slow_loop() -> None:
    for values in make_cases():
        other = np.random.default_rng(len(values)).random(len(values))
        expected = stats.ttest_rel(values + other, other)
        assert compute_t_p(values[:, None])[0] == pytest.approx(expected.pvalue, rel=1e-6)
        mean = sum(values) / len(values)
        sd = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
        assert compute_effect_size(values[:, None])[0] == pytest.approx(mean / sd, rel=1e-9)
        assert compute_effect_size(values[:, None])[0] * len(values) ** 0.5 == pytest.approx(
            expected.statistic, rel=1e-6
        )


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_equal_models_have_p_one_and_no_effect(values: list[float]) -> None:
    differences = np.array(values)[:, None] - np.array(values)[:, None]
    assert [test(differences)[0] for test in TESTS] == [1.0, 1.0, 1.0]
    assert np.isnan(compute_effect_size(differences)[0])


def test_rounding_errors_are_no_differences() -> None:
    differences = np.full((30, 1), 0.1 + 0.2 - 0.3)
    assert differences[0] != 0
    assert [test(differences)[0] for test in TESTS] == [1.0, 1.0, 1.0]


def test_two_sided_tests_are_symmetric_and_columns_are_independent() -> None:
    values = np.random.default_rng(4).normal(0.1, 1, (60, 3))
    for test in TESTS:
        np.testing.assert_allclose(test(values), test(-values), rtol=1e-12)
        np.testing.assert_array_equal(test(values)[1:2], test(values[:, 1:2]))


def test_one_user() -> None:
    one = np.array([[0.5]])
    assert np.isnan(compute_t_p(one)[0])
    assert np.isnan(compute_effect_size(one)[0])
    assert compute_wilcoxon_p(one)[0] == 1.0
    assert compute_randomisation_p(one, 10, 0)[0] == 1.0


@pytest.mark.parametrize("test", TESTS)
def test_p_values_are_uniform_under_the_null_hypothesis(test) -> None:  # type: ignore[no-untyped-def]
    p = test(np.random.default_rng(7).normal(0, 1, (150, 400)))
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.03)


def test_benjamini_hochberg_by_hand() -> None:
    # m = 4, sorted p = .01, .02, .03, .5: m p / rank = .04, .04, .04, .5.
    p = np.array([0.5, 0.01, 0.03, 0.02])
    np.testing.assert_allclose(correct_p_values(p, "bh"), [0.5, 0.04, 0.04, 0.04], rtol=1e-12)
    # Three p-values: 3 * .01 / 1 = .03, 3 * .04 / 2 = .06 and 3 * .05 / 3 = .05, which is smaller and wins.
    np.testing.assert_allclose(correct_p_values(np.array([0.04, 0.05, 0.01]), "bh"), [0.05, 0.05, 0.03], rtol=1e-12)


def test_corrections_equal_slow_loops() -> None:
    for case in range(100):
        p = np.round(np.random.default_rng(case).random(1 + case % 13) ** 3, 2)
        m, order = len(p), sorted(range(len(p)), key=lambda i: p[i])
        for name, found in (("bh", correct_p_values(p, "bh")), ("holm", correct_p_values(p, "holm"))):
            for place, index in enumerate(order):
                if name == "bh":
                    expected = min(min(m * p[order[j]] / (j + 1) for j in range(place, m)), 1)
                else:
                    expected = min(max((m - j) * p[order[j]] for j in range(place + 1)), 1)
                assert found[index] == pytest.approx(expected, rel=1e-12)
        np.testing.assert_array_equal(correct_p_values(p, "none"), p)


def test_an_unknown_p_value_is_not_counted() -> None:
    p = np.array([np.nan, 0.02, np.nan, 0.03])
    for correction in ("holm", "bh", "none"):
        found = correct_p_values(p, correction)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found[[0, 2]], [np.nan, np.nan])
        np.testing.assert_array_equal(found[[1, 3]], correct_p_values(p[[1, 3]], correction))  # type: ignore[arg-type]
    assert np.isnan(correct_p_values(np.array([np.nan]), "bh")).all()
