from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.report.relative_changes import compare_columns, compare_with_reference
from hellm_recbole.report.settings import read_report_settings

SETTINGS = read_report_settings().model_copy(update={"n_resamples": 2000})


def test_the_change_is_a_fraction_of_the_mean_of_the_reference() -> None:
    reference = np.array([1.0, 1.0, 0.0, 0.0] * 50)  # mean 1/2
    half = np.array([1.0, 0.0, 0.0, 0.0] * 50)  # mean 1/4
    found, same = compare_with_reference(reference, [half, reference], SETTINGS)
    assert found.change == pytest.approx(-1 / 2)
    assert found.low is not None
    assert found.high is not None
    assert found.low < -1 / 2 < found.high < 0
    assert found.p == pytest.approx(2 / 2001)  # Holm doubles the smallest p
    assert (same.change, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_each_column_has_its_own_reference() -> None:
    rng = np.random.default_rng(0)
    references, others = rng.random((3, 40)), rng.random((3, 40))
    found = compare_columns(list(references), list(others), SETTINGS)
    expected = [(b.mean() - a.mean()) / a.mean() for a, b in zip(references, others, strict=True)]
    assert [one.change for one in found] == pytest.approx(expected)


def test_a_reference_of_zero_has_no_relative_change() -> None:
    (found,) = compare_with_reference(np.zeros(5), [np.ones(5)], SETTINGS)
    assert (found.change, found.low, found.high) == (None, None, None)
    assert found.p < 0.01
