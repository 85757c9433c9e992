"""Ranks at many points against sums of all items: equal bits, ties, rounding, infinite scores, and repeated masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.evaluation.combined_scores import add_term
from hellm_recbole.evaluation.point_ranks import rank_points
from hellm_recbole.evaluation.ranking import MaskedItems, count_at_least, find_masked, select_scores
from hellm_recbole.evaluation.weight_search import list_product
from hellm_recbole.types import FloatArray, Histories, IdArray

N_USERS, N_ITEMS = 6, 60
POINTS = np.array(list_product([[0.0, 0.5, 3.0], [0.0, 0.2, 1.0], [0.0, 0.1, 0.7]]), dtype=np.float32)


def rank_slowly(
    first: FloatArray | None, terms: list[FloatArray], row_of: IdArray, item: IdArray, masked: MaskedItems
) -> list[list[list[int]]]:
    """Sum all items at each point, and rank with the functions of `ranking`."""
    ranks: list[list[list[int]]] = [[], []]
    for point in POINTS.tolist():
        total = first
        for values, weight in zip(terms, point, strict=True):
            total = add_term(total, values, weight, np.empty_like(values)) if weight else total
        total = np.zeros_like(terms[0]) if total is None else total
        score = select_scores(total, row_of, item)
        count = count_at_least(total, row_of, score)
        ranks[0].append((count - masked.count_at_least(total, score)).tolist())
        ranks[1].append(count.tolist())
    return ranks


def draw_targets(rng: np.random.Generator) -> tuple[IdArray, IdArray, MaskedItems]:
    """Draw targets, of which some users have several, and histories that repeat items."""
    row_of = np.sort(np.concatenate([np.arange(N_USERS), rng.integers(0, N_USERS, 3)]))
    item = rng.integers(1, N_ITEMS + 1, len(row_of))
    seen = Histories.from_pairs(rng.integers(1, N_USERS + 1, 40), rng.integers(1, N_ITEMS + 1, 40), N_USERS)
    return row_of, item, find_masked(row_of, item, np.arange(1, N_USERS + 1), seen)


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(["ties", "sparse", "rounding", "smooth"]))
def test_ranks_equal_sums_of_all_items(seed: int, has_first: bool, kind: str) -> None:
    rng = np.random.default_rng(seed)
    draws = {
        "ties": lambda: rng.integers(-2, 3, (N_USERS, N_ITEMS)) / 4,
        "sparse": lambda: np.log(rng.random((N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.1) + 1e-3),
        "rounding": lambda: 1e4 + rng.integers(0, 9, (N_USERS, N_ITEMS)) * 2.0**-10,
        "smooth": lambda: rng.normal(size=(N_USERS, N_ITEMS)),
    }
    first, *terms = (draws[kind]().astype(np.float32) for _ in range(4))
    row_of, item, masked = draw_targets(rng)
    start = first if has_first else None
    found = rank_points(start, terms, POINTS, row_of, item, masked)
    assert found.tolist() == rank_slowly(start, terms, row_of, item, masked)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_scores_are_ranked_like_others(value: float) -> None:
    rng = np.random.default_rng(2)
    first, *terms = (rng.normal(size=(N_USERS, N_ITEMS)).astype(np.float32) for _ in range(4))
    row_of, item, masked = draw_targets(rng)
    terms[1][rng.random((N_USERS, N_ITEMS)) < 0.3] = value
    found = rank_points(first, terms, POINTS, row_of, item, masked)
    assert found.tolist() == rank_slowly(first, terms, row_of, item, masked)


def test_equal_scores_rank_the_target_last() -> None:
    same = np.zeros((1, N_ITEMS), dtype=np.float32)
    nobody = find_masked(
        np.array([0]), np.array([5]), np.array([1]), Histories.from_pairs(*np.zeros((2, 0), np.int64), 1)
    )
    found = rank_points(None, [same, same, same], POINTS, np.array([0]), np.array([5]), nobody)
    assert (found == N_ITEMS).all()
