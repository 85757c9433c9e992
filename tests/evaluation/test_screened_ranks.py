"""Ranks screened by a product in bfloat16: equal to those of float32, and the bound holds for each pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hellm_recbole.evaluation import product_ranks, screened_ranks
from hellm_recbole.evaluation.product_ranks import ItemVectors
from hellm_recbole.evaluation.ranking import ModelScorer, Ranks, rank_targets
from hellm_recbole.evaluation.screened_ranks import Rounded, ScreeningRanker
from tests.evaluation.test_product_ranks import CPU, Case, assert_equal_ranks, make_case


def rank_screened(case: Case, block_users: int) -> Ranks:
    """Rank the targets of a case with a product in bfloat16."""
    return rank_targets(
        ModelScorer(case.model, CPU),
        case.targets,
        train=case.train,
        seen=case.seen,
        block_users=block_users,
        who="x",
        product="bfloat16",
    )


def test_100_random_cases_with_ties_equal_the_ranks_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_ranks, "_TILE_ITEMS", 64)
    refined = []
    original = ScreeningRanker._refine

    def refine(self: ScreeningRanker, *args: object) -> object:
        near = original(self, *args)  # type: ignore[arg-type]
        refined.append(sum(len(one) for one, _ in near))
        return near

    monkeypatch.setattr(ScreeningRanker, "_refine", refine)
    for seed in range(100):
        # Half of the cases compute no tile in float32, however many items are near.
        monkeypatch.setattr(screened_ranks, "_LARGEST_PART", 8 if seed % 4 < 2 else 0)
        case, block_users = make_case(seed), 32 + seed % 40
        assert_equal_ranks(rank_screened(case, block_users), case.rank(block_users=block_users, by_tiles=False))
    assert len(refined) > 100
    assert sum(refined) > 1000  # ties


def test_the_bound_holds_and_is_not_far_too_wide() -> None:
    generator = torch.Generator().manual_seed(1)
    users, items = torch.randn(50, 64, generator=generator), torch.randn(400, 64, generator=generator)
    items[::3] *= 30
    bias = torch.randn(400, generator=generator)
    ranker = ScreeningRanker()
    ranker._items = Rounded.build(items, bias)
    query = Rounded.build(users, torch.ones(50))
    exact = (users @ items.T + bias).numpy()
    screened = (query.rounded @ ranker._items.rounded.T).float().numpy()
    widths = []
    for column in range(400):
        low, high = ranker._bound(query, np.arange(50), exact[:, column], column, column + 1)
        assert ((screened[:, column] >= low) & (screened[:, column] <= high)).all()
        widths.append((high - low) / np.abs(exact).std())
    errors = np.abs(screened - exact).max(axis=0)
    assert errors.max() > 0.001 * np.mean(widths)  # the screening product does differ
    assert np.mean(widths) < 0.3


def test_scores_that_may_be_infinite_or_that_differ_alone_are_computed_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = make_case(6, n_users=40, n_items=70)
    assert case.model.encoded.item_bias is not None
    case.model.encoded.item_bias[3] = torch.inf
    assert_equal_ranks(rank_screened(case, 64), case.rank(block_users=64, by_tiles=False))
    case = make_case(8, n_users=70, n_items=90)
    expected = case.rank(block_users=40, by_tiles=False)
    original = product_ranks.score_pairs
    for module in (product_ranks, screened_ranks):
        monkeypatch.setattr(module, "score_pairs", lambda *args: np.nextafter(original(*args), np.float32(9)))
    assert_equal_ranks(rank_screened(case, 40), expected)


def test_vectors_are_rounded_again_for_other_items() -> None:
    ranker = ScreeningRanker()
    rng = np.random.default_rng(0)
    query = torch.from_numpy(rng.normal(size=(40, 8)).astype(np.float32))
    row, item = np.arange(40), rng.integers(1, 101, 40)
    for seed in (1, 2):
        vectors = torch.from_numpy(np.random.default_rng(seed).normal(size=(100, 8)).astype(np.float32))
        scored = ranker.score(query, ItemVectors.build(vectors, None), row, item, row, item)
        assert scored is not None
        scores = (query @ vectors.T).numpy()
        assert scored.count.tolist() == (scores >= scores[row, item - 1][:, None]).sum(axis=1).tolist()
        assert np.array_equal(scored.other, scored.target)
