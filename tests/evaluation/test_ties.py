"""Rules for ties: by hand, and against all orders of the tied candidates, one by one."""

from __future__ import annotations

from itertools import pairwise, permutations
from math import log2

import numpy as np
import pytest
import torch

from hellm_recbole.errors import TrainingDiverged
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.evaluation.ties import TieRanks, compute_under_rule, place_optimistically, rank_ties
from hellm_recbole.types import Histories, Targets
from tests.toy import Table

K = 3


def rank(
    table: list[list[float]], targets: list[tuple[int, int]], seen: list[tuple[int, int]], block: int = 2
) -> TieRanks:
    """Rank targets with fixed scores; `table` has a row for each user from 1."""
    scores = torch.tensor([[0.0] * len(table[0]), *table])
    history = Histories.from_pairs(*(np.array([pair[side] for pair in seen], np.int64) for side in (0, 1)), len(table))
    pairs = Targets(*(np.array([pair[side] for pair in targets], np.int64) for side in (0, 1)))
    ranks = rank_ties(Table(scores), pairs, seen=history, block_users=block, who="x")
    usual = rank_targets(Table(scores), pairs, train=history, seen=history, block_users=block, who="x")
    assert ranks.last.tolist() == usual.seen.tolist()
    return ranks


def test_first_and_last_place_by_hand() -> None:
    ranks = rank([[5, 3, 3, 3, 1], [2, 2, 2, 2, 2]], [(1, 3), (2, 1)], [(1, 4), (1, 1), (2, 5)])
    # User 1: items 1 and 4 are masked, item 2 has the score of the target. User 2: all four candidates are tied.
    assert (ranks.first.tolist(), ranks.last.tolist()) == ([1, 1], [2, 4])
    assert ranks.tied_frac == 1
    assert compute_under_rule(ranks.user, ranks, "random", [1])["R@1"].tolist() == [1 / 2, 1 / 4]
    assert compute_under_rule(ranks.user, ranks, "pessimistic", [1])["R@1"].tolist() == [0, 0]
    assert compute_under_rule(ranks.user, ranks, "optimistic", [1])["N@1"].tolist() == [1, 1]


def test_the_next_number_of_float32_is_higher_and_infinity_is_not_above_itself() -> None:
    above = float(np.nextafter(np.float32(1), np.float32(2)))
    infinity = float("inf")
    ranks = rank([[1, above, 1], [0, -0.0, 1e-45], [infinity, infinity, 1], [-infinity, -infinity, 0]],
                 [(1, 1), (2, 1), (3, 1), (4, 1)], [])  # fmt: skip
    assert ranks.first.tolist() == [2, 2, 1, 2]
    assert ranks.last.tolist() == [3, 3, 2, 3]


def test_tied_targets_of_one_user_follow_each_other() -> None:
    ranks = rank([[2, 2, 2, 1]], [(1, 1), (1, 3)], [])
    assert (ranks.first.tolist(), ranks.last.tolist()) == ([1, 1], [3, 3])
    assert place_optimistically(ranks).tolist() == [1, 2]
    assert compute_under_rule(ranks.user, ranks, "optimistic", [2])["N@2"].tolist() == [1]


def compute_slowly(order: tuple[int, ...], targets: list[int]) -> tuple[float, float]:
    """Compute Recall@K and NDCG@K of one list."""
    places = [order.index(target) + 1 for target in targets]
    ideal = sum(1 / log2(place + 1) for place in range(1, min(K, len(targets)) + 1))
    dcg = sum(1 / log2(place + 1) for place in places if place <= K)
    return sum(place <= K for place in places) / len(targets), dcg / ideal


@pytest.mark.parametrize("seed", range(100))
def test_the_rules_are_mean_and_maximum_over_all_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [float(value) for value in rng.integers(0, 3, 6)]
    items = [int(item) for item in rng.permutation(6) + 1]
    n_targets, n_seen = int(rng.integers(1, 4)), int(rng.integers(0, 2))
    targets, seen = sorted(items[:n_targets]), items[n_targets : n_targets + n_seen]
    candidates = [item for item in range(1, 7) if item not in seen]
    lists = [
        order for order in permutations(candidates) if all(scores[a - 1] >= scores[b - 1] for a, b in pairwise(order))
    ]
    found = np.array([compute_slowly(order, targets) for order in lists])
    ranks = rank([scores], [(1, target) for target in targets], [(1, item) for item in seen])
    for rule, expected in (("random", found.mean(axis=0)), ("optimistic", found.max(axis=0))):
        values = compute_under_rule(ranks.user, ranks, rule, [K])  # type: ignore[arg-type]
        assert [values[f"R@{K}"].item(), values[f"N@{K}"].item()] == pytest.approx(expected.tolist(), abs=1e-12)
    pessimistic = compute_under_rule(ranks.user, ranks, "pessimistic", [K])
    assert pessimistic[f"N@{K}"].item() <= found[:, 1].min() + 1e-12


def test_without_ties_all_rules_give_the_same_bits() -> None:
    rng = np.random.default_rng(1)
    place = rng.integers(1, 40, 300).astype(np.int32)
    ranks = TieRanks(np.repeat(np.arange(150), 2), np.zeros(300, np.int64), place, place)
    usual = compute_under_rule(ranks.user, ranks, "pessimistic", [5, 20])
    found = compute_under_rule(ranks.user, ranks, "random", [5, 20])
    assert {name: values.tolist() for name, values in found.items()} == {
        name: values.tolist() for name, values in usual.items()
    }


def test_nan_is_refused() -> None:
    with pytest.raises(TrainingDiverged, match="user id 1 is NaN"):
        rank([[float("nan"), 1]], [(1, 2)], [])
