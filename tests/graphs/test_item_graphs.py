"""Co-occurrence and transitions: by hand, and against dense loops over random histories."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.graphs.item_graphs import build_cooccurrence, build_transitions, weigh_history
from hellm_recbole.types import Histories

N_ITEMS = 6
sequences = st.lists(st.lists(st.integers(1, N_ITEMS), max_size=7), min_size=1, max_size=6)


def build_histories(items: list[list[int]]) -> Histories:
    user = np.array([u for u, one in enumerate(items, 1) for _ in one], dtype=np.int64)
    return Histories.from_pairs(user, np.array([i for one in items for i in one], dtype=np.int64), len(items))


def test_cooccurrence_by_hand() -> None:
    found = build_cooccurrence(build_histories([[1, 2, 1], [2, 1], [2, 3]]), 4).toarray()
    assert found[0, 1] == found[1, 0] == pytest.approx(2 / math.sqrt(2 * 3))
    assert found[1, 2] == pytest.approx(1 / math.sqrt(3 * 1))
    assert found[0, 2] == 0
    assert not found.diagonal().any()
    assert not found[3].any()


def test_transitions_by_hand() -> None:
    history = build_histories([[1, 2, 3], [2], [1, 2]])  # steps 1-2 twice, 2-3 once
    directed = build_transitions(history, 3, "directed").toarray()
    assert directed.tolist() == [[0, 2 / math.sqrt(2 * 2), 0], [0, 0, 1 / math.sqrt(1 * 1)], [0, 0, 0]]
    symmetric = build_transitions(history, 3, "symmetric").toarray()
    assert symmetric[0, 1] == symmetric[1, 0] == pytest.approx(2 / math.sqrt(2 * 3))
    assert symmetric[1, 2] == symmetric[2, 1] == pytest.approx(1 / math.sqrt(3 * 1))


@given(sequences)
def test_cooccurrence_equals_a_loop_over_pairs_of_items(items: list[list[int]]) -> None:
    users = [{u for u, one in enumerate(items) if i in one} for i in range(1, N_ITEMS + 1)]
    expected = [
        [0.0 if i == j or not (a & b) else len(a & b) / math.sqrt(len(a) * len(b)) for j, b in enumerate(users)]
        for i, a in enumerate(users)
    ]
    found = build_cooccurrence(build_histories(items), N_ITEMS)
    assert sp.issparse(found)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-12)


@given(sequences, st.sampled_from(["symmetric", "directed"]))
def test_transitions_equal_a_loop_over_steps(items: list[list[int]], form: Literal["symmetric", "directed"]) -> None:
    counts = np.zeros((N_ITEMS, N_ITEMS))
    for one in items:
        for earlier, later in itertools.pairwise(one):
            counts[earlier - 1, later - 1] += 1
            if form == "symmetric":
                counts[later - 1, earlier - 1] += 1
    scale = np.sqrt(np.outer(counts.sum(axis=1), counts.sum(axis=0)))
    expected = np.divide(counts, scale, out=np.zeros_like(counts), where=counts > 0)
    np.testing.assert_allclose(build_transitions(build_histories(items), N_ITEMS, form).toarray(), expected, rtol=1e-12)


@given(sequences)
def test_history_weights_equal_a_loop(items: list[list[int]]) -> None:
    user = np.arange(len(items), 0, -1)
    expected = np.zeros((len(items), N_ITEMS))
    for row, number in enumerate(user):
        for steps_back, item in enumerate(reversed(items[number - 1])):
            expected[row, item - 1] += 0.5**steps_back
    found = weigh_history(build_histories(items), user, 0.5, N_ITEMS)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-12)
