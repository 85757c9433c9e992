"""Ranks from given lists, compared with a slow loop over the file, and the counts of what the lists lack."""

from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import DataError
from hellm_recbole.evaluation.ranking import POLICIES, rank_targets
from hellm_recbole.serving.given_lists import GivenScorer, count_lists, make_list_scorer
from hellm_recbole.serving.score_tables import GivenMatrix, GivenPairs
from tests.experiments.test_export import make_dataset

# u1: training 1, 2; validation 3; test 4. u2: training 3, 4; validation 5; test 1. u3 is too short. Six items.
PAIRS = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (2, 5), (2, 1), (3, 6)]


@pytest.fixture
def split() -> Split:
    return split_dataset(make_dataset(PAIRS, 6))


def make_pairs(lists: dict[str, list[str]], scores: dict[str, list[float]] | None = None) -> GivenPairs:
    pairs = [(user, item) for user, items in lists.items() for item in items]
    value = [-float(n) for items in lists.values() for n in range(1, len(items) + 1)]
    if scores is not None:
        value = [score for user in lists for score in scores[user]]
    return GivenPairs([u for u, _ in pairs], [i for _, i in pairs], np.array(value), "score", "table")


def rank(scorer: GivenScorer, split: Split) -> dict[str, list[int]]:
    found = rank_targets(
        scorer, split.test, train=split.train, seen=split.make_test_history(), block_users=1, who="toy"
    )
    return {policy: getattr(found, policy).tolist() for policy in POLICIES}


def test_ranks_of_hand_made_lists(split: Split) -> None:
    """Items of the history are masked by the policy, and a target that is not listed ranks last of its candidates."""
    scorer = make_list_scorer(
        make_pairs({"u1": ["i3", "i5", "i1", "i4"], "u2": ["i6", "i2"]}), split, "x.csv", drop_unknown=False
    )
    # u1 has the candidates i4, i5, i6, and with the mask `train` i3 as well. u2 has i1, i2, i6.
    assert rank(scorer, split) == {"seen": [2, 3], "train": [3, 4], "none": [4, 6]}
    counts = count_lists(scorer, split.test, split.make_test_history(), block_users=1)
    assert (counts.longest, counts.shortest) == (2, 2)
    assert (counts.n_targets, counts.n_missing, counts.n_users_without, counts.n_history) == (2, 1, 0, 2)


def test_equal_scores_count_against_the_target(split: Split) -> None:
    lists, scores = {"u1": ["i4", "i5"], "u2": ["i1", "i2", "i6"]}, {"u1": [1.0, 1.0], "u2": [3.0, 2.0, 2.0]}
    scorer = make_list_scorer(make_pairs(lists, scores), split, "x.csv", drop_unknown=False)
    assert rank(scorer, split)["seen"] == [2, 1]


def test_a_user_without_a_list_is_counted(split: Split) -> None:
    scorer = make_list_scorer(make_pairs({"u1": ["i4"], "u3": ["i1"]}), split, "x.csv", drop_unknown=False)
    assert rank(scorer, split)["seen"] == [1, 3]
    counts = count_lists(scorer, split.test, split.make_test_history(), block_users=7)
    assert (counts.n_users_without, counts.n_missing, counts.shortest, counts.n_other_users) == (1, 1, 1, 1)


def rank_slowly(user: int, target: int, listed: dict[int, float], masked: set[int], n_items: int) -> int:
    candidates = [item for item in range(1, n_items + 1) if item not in masked or item == target]
    worst = float("-inf")
    return sum(listed.get(item, worst) >= listed.get(target, worst) for item in candidates)


def test_random_lists_equal_a_slow_loop() -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n_items = 9
        pairs = [(user, int(item)) for user in range(1, 5) for item in rng.integers(1, n_items + 1, rng.integers(3, 7))]
        split = split_dataset(make_dataset(pairs, n_items))
        chosen = {user: rng.permutation(n_items)[: rng.integers(0, n_items + 1)] + 1 for user in range(1, 5)}
        scores = {
            user: dict(zip(map(int, items), rng.integers(0, 4, len(items)).astype(float), strict=True))
            for user, items in chosen.items()
        }
        given = make_pairs(
            {f"u{user}": [f"i{item}" for item in listed] for user, listed in scores.items()},
            {f"u{user}": list(listed.values()) for user, listed in scores.items()},
        )
        table = np.full((4, n_items), -np.inf)
        for user, listed in scores.items():
            for item, value in listed.items():
                table[user - 1, item - 1] = value
        matrix = GivenMatrix([f"u{n}" for n in range(1, 5)], [f"i{n}" for n in range(1, n_items + 1)], table)
        scorer, dense = (make_list_scorer(form, split, "x", drop_unknown=False) for form in (given, matrix))
        found, history = rank(scorer, split), split.make_test_history()
        assert found == rank(dense, split)
        for index, (user, target) in enumerate(zip(split.test.user.tolist(), split.test.item.tolist(), strict=True)):
            masks = {"seen": history, "train": split.train, "none": None}
            for policy, masked in masks.items():
                hidden = set() if masked is None else {*masked.get_items(user).tolist()}
                assert found[policy][index] == rank_slowly(user, target, scores[user], hidden, n_items)


def test_scores_of_all_items_are_not_short(split: Split) -> None:
    score = np.arange(18, dtype=np.float32).reshape(3, 6)
    given = GivenMatrix(["u3", "u2", "u1"], ["i6", "i5", "i4", "i3", "i2", "i1"], score)
    scorer = make_list_scorer(given, split, "x.npz", drop_unknown=False)
    assert rank(scorer, split) == {"seen": [1, 1], "train": [2, 1], "none": [4, 1]}
    counts = count_lists(scorer, split.test, split.make_test_history(), block_users=7)
    assert (counts.longest, counts.shortest, counts.n_missing, counts.n_history) == (3, None, 0, 6)


def test_unknown_and_repeated_ids(split: Split) -> None:
    unknown = make_pairs({"u1": ["i4", "i77"], "u9": ["i1"]})
    with pytest.raises(DataError, match=r"x.csv: hand has no users 'u9'; check .* with --drop-unknown"):
        make_list_scorer(unknown, split, "x.csv", drop_unknown=False)
    scorer = make_list_scorer(unknown, split, "x.csv", drop_unknown=True)
    assert (scorer.n_unknown, rank(scorer, split)["seen"]) == (2, [1, 3])
    with pytest.raises(DataError, match=r"x\.csv lists the item 'i4' for the user 'u1' twice"):
        make_list_scorer(make_pairs({"u1": ["i4", "i4"]}), split, "x.csv", drop_unknown=False)
    twice = GivenMatrix(["u1", "u1"], ["i1"], np.zeros((2, 1)))
    with pytest.raises(DataError, match=r"x\.npz has the user 'u1' twice"):
        make_list_scorer(twice, split, "x.npz", drop_unknown=False)
