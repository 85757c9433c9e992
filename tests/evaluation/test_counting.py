"""Counts of scores: against a plain comparison, at widths around those of the groups of bytes that are added up."""

from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.evaluation.counting import RowCounter, count_in_equal_rows, count_rows


@pytest.mark.parametrize("width", [1, 7, 8, 1023, 1024, 1025, 2048, 5000])
def test_counts_equal_a_plain_comparison(width: int) -> None:
    rng = np.random.default_rng(width)
    matrix = rng.integers(0, 4, (5, width)).astype(np.float32)
    value = rng.integers(0, 5, 5).astype(np.float32)
    expected = (matrix >= value[:, None]).sum(axis=1).tolist()
    counter = RowCounter()
    assert counter.count(matrix, value).tolist() == expected
    assert counter.count(matrix[:2, : width // 2], value[:2]).tolist() == (
        (matrix[:2, : width // 2] >= value[:2, None]).sum(axis=1).tolist()
    )  # a smaller matrix after a larger one
    assert counter.count(matrix, value).tolist() == expected


def test_a_row_in_which_all_scores_count_does_not_overflow_a_byte() -> None:
    assert RowCounter().count(np.ones((2, 100_000), np.float32), np.ones(2, np.float32)).tolist() == [100_000] * 2


def test_rows_may_have_several_values_and_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    matrix = rng.integers(0, 9, (6, 50)).astype(np.float32)
    row_of = np.array([0, 0, 1, 2, 2, 2, 5])
    value = rng.integers(0, 9, 7).astype(np.float32)
    expected = (matrix[row_of] >= value[:, None]).sum(axis=1).tolist()
    for chunk in (1, 100, 10**6):
        monkeypatch.setattr("hellm_recbole.evaluation.counting._CHUNK", chunk)
        counts, is_nan = count_rows(matrix, row_of, value)
        assert (counts.tolist(), is_nan) == (expected, False)


def test_nan_is_found_and_rows_that_are_all_the_same_one_are_sorted_once() -> None:
    row = np.array([3.0, -np.inf, 2.0, 2.0, 5.0], dtype=np.float32)
    value = np.array([2.0, 6.0, 5.0, -np.inf], dtype=np.float32)
    assert count_in_equal_rows(row, value).tolist() == [4, 0, 1, 5]
    equal = np.broadcast_to(row, (4, 5))
    counts, is_nan = count_rows(equal, np.arange(4), value)
    assert (counts.tolist(), is_nan) == ([4, 0, 1, 5], False)
    broken = np.array([[1.0, 2.0], [np.nan, 1.0]], dtype=np.float32)
    assert count_rows(broken, np.arange(2), np.ones(2, np.float32))[1]
    assert count_rows(np.broadcast_to(broken[1], (3, 2)), np.arange(3), np.ones(3, np.float32))[1]
