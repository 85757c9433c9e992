"""Count in each row of a matrix the scores that are at least as high as a value, in one pass over memory.

A comparison of numpy gives one byte for each score, 0 or 1. Eight bytes are added at a time, as one 64-bit number, in
groups of so few that no byte can overflow. That takes a fifth of the time of a count row by row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hellm_recbole.types import IdArray

_WORD_BYTES = 8
_GROUP_WORDS = 128  # numbers of 64 bits that are added up; at most 255, the largest value of a byte
_GROUP = _WORD_BYTES * _GROUP_WORDS  # columns
_CHUNK = 2**18  # scores that are compared at a time: 1 MiB, which stays in the CPU's cache


class RowCounter:
    """Counts scores row by row, in buffers that are reused."""

    def __init__(self) -> None:
        self._mask = np.zeros((0, _GROUP), dtype=np.bool_)

    def count(self, matrix: npt.NDArray[np.floating], value: npt.NDArray[np.floating]) -> IdArray:
        """Count the scores of each row that are at least as high as the value of the row.

        Args:
            matrix: [B, W] scores without NaN.
            value: [B] value of each row.

        Returns:
            [B] counts.

        >>> RowCounter().count(np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 0.0]]), np.array([2.0, 4.0])).tolist()
        [2, 2]
        """
        n_rows, width = matrix.shape
        padded = -(-width // _GROUP) * _GROUP
        if self._mask.shape[0] < n_rows or self._mask.shape[1] != padded:
            self._mask = np.zeros((n_rows, padded), dtype=np.bool_)
        mask = self._mask[:n_rows]
        np.greater_equal(matrix, value[:, None], out=mask[:, :width])
        mask[:, width:] = False  # left by an earlier, wider matrix
        sums = mask.view(np.uint64).reshape(n_rows, -1, _GROUP_WORDS).sum(axis=2)
        counts: IdArray = sums.view(np.uint8).reshape(n_rows, -1).sum(axis=1, dtype=np.int64)
        return counts


def count_rows(
    matrix: npt.NDArray[np.floating], row_of: IdArray, value: npt.NDArray[np.floating]
) -> tuple[IdArray, bool]:
    """Count, for each value, the scores of its row that are at least as high, and look for NaN.

    A few rows are read at a time, so that the cache holds them until both are done.

    Args:
        matrix: [B, I] scores.
        row_of: [t] row of each value, sorted.
        value: [t] values.

    Returns:
        [t] counts, and whether the sum of the scores of any of these rows is NaN. Infinities of both signs sum to NaN,
        too.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if len(matrix) and matrix.strides[0] == 0:  # all rows are the same one, such as those of `Pop`
            return count_in_equal_rows(matrix[0], value), bool(np.isnan(matrix[0].sum()))
        in_order = len(row_of) == len(matrix)  # each row has one value, so no row needs a copy
        step = max(1, _CHUNK // max(1, matrix.shape[1]))
        counts, counter, is_nan = np.empty(len(row_of), dtype=np.int64), RowCounter(), False
        for start in range(0, len(row_of), step):
            part = slice(start, start + step)
            rows = matrix[part] if in_order else matrix[row_of[part]]
            is_nan |= bool(np.isnan(rows.sum()))
            counts[part] = counter.count(rows, value[part])
    return counts, is_nan


def count_in_equal_rows(row: npt.NDArray[np.floating], value: npt.NDArray[np.floating]) -> IdArray:
    """Count the scores of one row that are at least as high as each value: the row is sorted once.

    Args:
        row: [I] scores without NaN, the same for all users.
        value: [t] values.

    Returns:
        [t] counts.

    >>> count_in_equal_rows(np.array([3, 1, 2], np.float32), np.array([2, 4, 1], np.float32)).tolist()
    [2, 0, 3]
    """
    counts: IdArray = len(row) - np.searchsorted(np.sort(row), value, side="left")
    return counts
