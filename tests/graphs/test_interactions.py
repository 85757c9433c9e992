"""The users x items matrix of interactions."""

from __future__ import annotations

import numpy as np

from hellm_recbole.graphs.interactions import build_interactions
from hellm_recbole.types import Histories


def test_repeated_interactions_are_counted_and_padding_is_empty() -> None:
    history = Histories.from_pairs(np.array([2, 1, 2, 2]), np.array([3, 1, 3, 2]), 3)
    found = build_interactions(history, 4)
    expected = np.zeros((4, 5), dtype=np.float32)
    expected[1, 1], expected[2, 3], expected[2, 2] = 1, 2, 1
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), expected)
    assert found[2].indices.tolist() == [2, 3]
