"""Full ranking: masks and ties by hand, NaN scores, and a comparison with a slow transcription of the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.errors import TrainingDiverged
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.types import Histories, Targets
from tests.toy import Table


def build_histories(sequences: list[list[int]]) -> Histories:
    """Build the histories of users 1, 2, ... from their item sequences."""
    user = np.array([u for u, items in enumerate(sequences, 1) for _ in items], dtype=np.int64)
    return Histories.from_pairs(
        user, np.array([i for items in sequences for i in items], dtype=np.int64), len(sequences)
    )


def compute_rank_slowly(scores: list[float], target: int, masked: list[int]) -> int:
    """Rank a target as it is defined: candidates are all items that are not masked, and the target itself."""
    candidates = [i for i in range(1, len(scores) + 1) if i == target or i not in masked]
    return sum(scores[i - 1] >= scores[target - 1] for i in candidates)


def test_masks_and_ties_by_hand() -> None:
    table = torch.tensor([[0.0] * 5, [5.0, 4.0, 3.0, 3.0, 1.0]])
    train, seen = build_histories([[1]]), build_histories([[1, 2]])
    ranks = rank_targets(
        Table(table), Targets(np.array([1]), np.array([3])), train=train, seen=seen, block_users=8, who="x"
    )
    # items 1 and 2 score higher, item 4 ties and counts against the target
    assert (ranks.none.tolist(), ranks.train.tolist(), ranks.seen.tolist()) == ([4], [3], [2])


def test_a_constant_scorer_ranks_last() -> None:
    table = torch.ones(3, 50)
    ranks = rank_targets(
        Table(table),
        Targets(np.array([1, 2]), np.array([9, 1])),
        train=build_histories([[1, 2], []]),
        seen=build_histories([[1, 2], []]),
        block_users=8,
        who="x",
    )
    assert ranks.none.tolist() == [50, 50]
    assert ranks.seen.tolist() == [48, 50]


def test_a_target_that_was_seen_is_not_masked() -> None:
    table = torch.tensor([[0.0] * 3, [3.0, 2.0, 1.0]])
    seen = build_histories([[1, 2, 2]])
    ranks = rank_targets(
        Table(table), Targets(np.array([1]), np.array([2])), train=seen, seen=seen, block_users=8, who="x"
    )
    assert (ranks.seen.tolist(), ranks.none.tolist()) == ([1], [2])


def test_the_error_about_nan_names_model_phase_and_user() -> None:
    table = torch.zeros(4, 5)
    table[3, 1] = torch.nan
    targets = Targets(np.array([1, 3]), np.array([1, 1]))
    empty = build_histories([[], [], []])
    with pytest.raises(TrainingDiverged, match=r"BPR on Beauty, test: score of user id 3 is NaN"):
        rank_targets(Table(table), targets, train=empty, seen=empty, block_users=2, who="BPR on Beauty, test")


def test_infinite_scores_of_both_signs_are_ranked() -> None:
    table = torch.tensor([[0.0, 0.0, 0.0], [torch.inf, -torch.inf, 1.0]])
    empty = build_histories([[]])
    ranks = rank_targets(
        Table(table), Targets(np.array([1]), np.array([3])), train=empty, seen=empty, block_users=2, who="x"
    )
    assert ranks.seen.tolist() == [2]


@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_equals_the_slow_definition_whatever_the_block_size(seed: int, block_users: int) -> None:
    rng = np.random.default_rng(seed)
    n_users, n_items = 6, 9
    table = rng.integers(0, 4, (n_users + 1, n_items)).astype(np.float32)  # few values: many ties
    train = [rng.integers(1, n_items + 1, rng.integers(0, 5)).tolist() for _ in range(n_users)]
    later = [rng.integers(1, n_items + 1, rng.integers(0, 3)).tolist() for _ in range(n_users)]
    seen = [a + b for a, b in zip(train, later, strict=True)]
    pairs = sorted((u, int(i)) for u in range(1, n_users + 1) for i in rng.integers(1, n_items + 1, rng.integers(0, 4)))
    if not pairs:
        return
    targets = Targets(np.array([u for u, _ in pairs]), np.array([i for _, i in pairs]))
    ranks = rank_targets(
        Table(torch.from_numpy(table)),
        targets,
        train=build_histories(train),
        seen=build_histories(seen),
        block_users=block_users,
        who="x",
    )
    for index, (u, i) in enumerate(pairs):
        scores = table[u].tolist()
        assert ranks.none[index] == compute_rank_slowly(scores, i, [])
        assert ranks.train[index] == compute_rank_slowly(scores, i, train[u - 1])
        assert ranks.seen[index] == compute_rank_slowly(scores, i, seen[u - 1])
