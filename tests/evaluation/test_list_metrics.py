"""Metrics of top-K lists: cases by hand, and slow loops over users, items and pairs."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from hellm_recbole.evaluation.list_metrics import (
    TopLists,
    compute_coverage,
    compute_diversity,
    compute_gini,
    compute_lift,
    compute_novelty,
    compute_popularity,
    count_items,
)
from hellm_recbole.types import Histories


def make_lists(lists: list[list[int]], n_items: int) -> TopLists:
    lengths = [len(items) for items in lists]
    rank = np.concatenate([np.arange(1, length + 1) for length in lengths])
    return TopLists(np.repeat(np.arange(len(lists)), lengths), rank, np.concatenate(lists), len(lists), n_items)


def make_train(histories: list[list[int]]) -> Histories:
    user = np.repeat(np.arange(1, len(histories) + 1), [len(items) for items in histories])
    return Histories.from_pairs(
        user, np.concatenate([np.array(items, np.int64) for items in histories]), len(histories)
    )


LISTS = make_lists([[1, 2], [2, 3], [2]], 5)
# c = 4, 1, 1, 0, 0; n = 3, 1, 1, 0, 0 (user 1 has item 1 twice); user 4 has no training part
COUNTS = count_items(make_train([[1, 1], [1, 2], [1, 3], []]), 5)


def test_counts_by_hand() -> None:
    assert COUNTS.interactions.tolist() == [0, 4, 1, 1, 0, 0]
    assert COUNTS.users.tolist() == [0, 3, 1, 1, 0, 0]
    assert COUNTS.n_users == 3
    assert COUNTS.profile[1:4].tolist() == [4, 5 / 2, 5 / 2]
    assert math.isnan(COUNTS.profile[4])


def test_coverage_and_gini_by_hand() -> None:
    assert compute_coverage(LISTS) == 3 / 5
    assert compute_coverage(LISTS.cut(1)) == 2 / 5
    # item counts in ascending order 0, 0, 1, 1, 3 with the weights -4, -2, 0, 2, 4; 5 items, 5 entries
    assert compute_gini(LISTS) == pytest.approx(14 / 25, abs=1e-15)
    assert compute_gini(make_lists([[1, 2], [3, 4]], 4)) == 0
    assert compute_gini(make_lists([[3]], 4)) == 3 / 4


def test_popularity_and_novelty_by_hand() -> None:
    assert compute_popularity(LISTS, COUNTS).tolist() == [5 / 2, 1, 1]
    assert compute_lift(LISTS, COUNTS, np.array([1, 2, 3])).tolist() == [
        pytest.approx(5 / 8 - 1),
        pytest.approx(2 / 5 - 1),
        pytest.approx(2 / 5 - 1),
    ]
    assert np.isnan(compute_lift(LISTS, COUNTS, np.array([1, 2, 4]))).tolist() == [False, False, True]
    assert compute_novelty(LISTS, COUNTS).tolist() == pytest.approx([math.log2(3) / 2, math.log2(3), math.log2(3)])
    never = make_lists([[4]], 5)  # an item that nobody has counts as if one user had it
    assert compute_novelty(never, COUNTS).tolist() == [pytest.approx(math.log2(3))]
    assert compute_popularity(never, COUNTS).tolist() == [0]


def test_diversity_by_hand() -> None:
    features = np.array([[0, 0], [1, 0], [0, 2], [-3, 0], [0, 0], [5, 0]], dtype=np.float32)
    everything = np.array([False, True, True, True, True, True])
    lists = make_lists([[1, 2], [1, 3], [1, 5], [1, 2, 3], [1], [1, 4, 2]], 5)
    # the cosines are 0; -1; 1; 0, -1, 0; no pair; item 4 is a zero vector, so only the pair (1, 2) is left
    assert compute_diversity(lists, features, everything).tolist() == pytest.approx([1, 2, 0, 4 / 3, 0, 1])
    without_two = everything & (np.arange(6) != 2)
    assert compute_diversity(lists, features, without_two).tolist() == pytest.approx([0, 2, 0, 2, 0, 0])


@pytest.mark.parametrize("seed", range(100))
def test_random_lists_equal_slow_loops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hellm_recbole.evaluation.list_metrics._BLOCK_ENTRIES", 40)
    rng = np.random.default_rng(seed)
    n_users, n_items, k = int(rng.integers(1, 9)), int(rng.integers(6, 20)), int(rng.integers(1, 7))
    histories = [rng.integers(1, n_items + 1, rng.integers(1, 8)).tolist() for _ in range(n_users)]
    given = [(rng.permutation(n_items)[: rng.integers(1, 7)] + 1).tolist() for _ in range(n_users)]
    lists, counts = make_lists(given, n_items).cut(k), count_items(make_train(histories), n_items)
    cut = [items[:k] for items in given]
    features = rng.normal(size=(n_items + 1, 3)).astype(np.float32)
    covered = rng.random(n_items + 1) < 0.8

    listed = Counter(item for items in cut for item in items)
    times = [listed[item] for item in range(1, n_items + 1)]
    assert compute_coverage(lists) == sum(count > 0 for count in times) / n_items
    # the Gini index as half the relative mean absolute difference
    gini = sum(abs(a - b) for a in times for b in times) / (2 * n_items * sum(times))
    assert compute_gini(lists) == pytest.approx(gini, abs=1e-12)

    interactions = Counter(item for history in histories for item in history)
    users = {item: sum(item in history for history in histories) for item in range(1, n_items + 1)}
    for user, items in enumerate(cut):
        popularity = sum(interactions[item] for item in items) / len(items)
        assert compute_popularity(lists, counts)[user] == pytest.approx(popularity, abs=1e-12)
        novelty = sum(-math.log2(max(users[item], 1) / n_users) for item in items) / len(items)
        assert compute_novelty(lists, counts)[user] == pytest.approx(novelty, abs=1e-12)
        profile = sum(interactions[item] for item in histories[user]) / len(histories[user])
        lift = compute_lift(lists, counts, np.arange(1, n_users + 1))[user]
        assert lift == pytest.approx(popularity / profile - 1, abs=1e-12)
        own = [features[item].astype(float) for item in items if covered[item]]
        distances = [
            1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for index, a in enumerate(own) for b in own[:index]
        ]
        diversity = sum(distances) / len(distances) if distances else 0.0
        assert compute_diversity(lists, features, covered)[user] == pytest.approx(diversity, abs=1e-12)
