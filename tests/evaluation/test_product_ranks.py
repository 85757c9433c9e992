"""Ranks by tiles: equal, bit for bit, to those from the scores of all items, in random cases with ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from hellm_recbole.errors import TrainingDiverged
from hellm_recbole.evaluation import product_ranks
from hellm_recbole.evaluation.product_ranks import TileRanker, divide_items
from hellm_recbole.evaluation.ranking import POLICIES, ModelScorer, Ranks, rank_targets
from hellm_recbole.types import Encoded, Histories, IdArray, QueryBatch, Targets

CPU = torch.device("cpu")


class Vectors:
    """A model that consists of its vectors."""

    max_history = 0

    def __init__(self, users: Tensor, items: Tensor, bias: Tensor | None) -> None:
        self.encoded = Encoded(items=items, users=users, item_bias=bias)

    def encode(self) -> Encoded:
        return self.encoded

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        return encoded.select_users(batch.user)

    def loss(self, batch: object) -> dict[str, Tensor]:
        raise NotImplementedError


class WholeScores:
    """The same scorer, of which only the scores of all items are known."""

    def __init__(self, scorer: ModelScorer) -> None:
        self.prepare, self.compute_scores = scorer.prepare, scorer.compute_scores


@dataclass(frozen=True)
class Case:
    """A model with targets and histories."""

    model: Vectors
    targets: Targets
    train: Histories
    seen: Histories

    def rank(self, *, block_users: int, by_tiles: bool) -> Ranks:
        scorer = ModelScorer(self.model, CPU)
        return rank_targets(
            scorer if by_tiles else WholeScores(scorer),
            self.targets,
            train=self.train,
            seen=self.seen,
            block_users=block_users,
            who="x",
        )


def draw_histories(rng: np.random.Generator, n_users: int, n_items: int, n_pairs: int) -> tuple[IdArray, IdArray]:
    """Draw (user, item) pairs."""
    return rng.integers(1, n_users + 1, n_pairs), rng.integers(1, n_items + 1, n_pairs)


def make_case(seed: int, n_users: int = 0, n_items: int = 0) -> Case:
    """Draw a case. Items have copies, and half of the cases have vectors of small integers: there are many ties."""
    rng = np.random.default_rng(seed)
    n_users = n_users or int(rng.integers(20, 140))
    n_items = n_items or int(rng.integers(32, 300))
    width = int(rng.choice([3, 16, 64]))

    def draw(*shape: int) -> Tensor:
        values = rng.integers(-2, 3, shape) if seed % 2 else rng.normal(size=shape)
        return torch.from_numpy(np.asarray(values, dtype=np.float32))

    items = draw(n_items + 1, width)
    copies: npt.NDArray[np.int64] = rng.integers(1, n_items + 1, (2, n_items // 3))
    items[copies[0]] = items[copies[1]]
    bias = draw(n_items + 1) if seed % 3 == 0 else None
    user, item = draw_histories(rng, n_users, n_items, 5 * n_users)
    later_user, later_item = draw_histories(rng, n_users, n_items, n_users)
    target_user, target_item = draw_histories(rng, n_users, n_items, n_users if seed % 5 else 4 * n_users)
    order = np.argsort(target_user, kind="stable")
    seen = Histories.from_pairs(np.append(user, later_user), np.append(item, later_item), n_users)
    return Case(
        Vectors(draw(n_users + 1, width), items, bias),
        Targets(target_user[order], target_item[order]),
        Histories.from_pairs(user, item, n_users),
        seen,
    )


def assert_equal_ranks(left: Ranks, right: Ranks) -> None:
    """Compare the ranks under all policies."""
    for policy in POLICIES:
        np.testing.assert_array_equal(getattr(left, policy), getattr(right, policy), err_msg=policy)


def count_tiles(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note for each block whether it was ranked by tiles."""
    done: list[bool] = []
    original = TileRanker.score

    def score(self: TileRanker, *args: object) -> object:
        found = original(self, *args)  # type: ignore[arg-type]
        done.append(found is not None)
        return found

    monkeypatch.setattr(TileRanker, "score", score)
    return done


def test_100_random_cases_equal_the_ranks_from_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    done = count_tiles(monkeypatch)
    monkeypatch.setattr(product_ranks, "_TILE_ITEMS", 64)  # several tiles
    for seed in range(100):
        case = make_case(seed)
        block_users = 32 + seed % 40
        assert_equal_ranks(
            case.rank(block_users=block_users, by_tiles=True), case.rank(block_users=block_users, by_tiles=False)
        )
    assert len(done) > 60
    assert all(done)


def test_validation_has_one_mask_and_small_blocks_are_ranked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done = count_tiles(monkeypatch)
    case = make_case(4, n_users=80, n_items=70)
    valid = Case(case.model, case.targets, case.train, case.train)
    by_tiles = valid.rank(block_users=64, by_tiles=True)
    assert_equal_ranks(by_tiles, valid.rank(block_users=64, by_tiles=False))
    assert by_tiles.train is not None
    assert np.array_equal(by_tiles.train, by_tiles.seen)
    assert done == [True]
    assert_equal_ranks(valid.rank(block_users=7, by_tiles=True), by_tiles)
    few = make_case(3, n_users=80, n_items=20)
    assert_equal_ranks(few.rank(block_users=64, by_tiles=True), few.rank(block_users=64, by_tiles=False))
    assert done == [True]  # no other block has enough users and items


def test_scores_that_the_product_computes_in_two_ways_are_ranked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done = count_tiles(monkeypatch)
    case = make_case(8, n_users=70, n_items=90)
    expected = case.rank(block_users=40, by_tiles=False)
    original = product_ranks.score_pairs
    monkeypatch.setattr(product_ranks, "score_pairs", lambda *args: np.nextafter(original(*args), np.float32(9)))
    assert_equal_ranks(case.rank(block_users=40, by_tiles=True), expected)
    assert done
    assert not any(done)


def test_nan_is_refused_and_infinite_scores_are_ranked() -> None:
    for place in (5, 60):  # of the target of a user, or of another item
        case = make_case(2, n_users=40, n_items=70)
        case.model.encoded.items[place, 0] = torch.nan
        with pytest.raises(TrainingDiverged, match=r"x: score of user id \d+ is NaN"):
            case.rank(block_users=64, by_tiles=True)
    case = make_case(6, n_users=40, n_items=70)
    assert case.model.encoded.item_bias is not None
    case.model.encoded.item_bias[3], case.model.encoded.item_bias[4] = torch.inf, -torch.inf
    assert_equal_ranks(case.rank(block_users=64, by_tiles=True), case.rank(block_users=64, by_tiles=False))
    case = make_case(10, n_users=40, n_items=70)
    case.model.encoded.items[7, :2] = torch.tensor([torch.inf, -torch.inf])
    case.model.encoded.users.fill_(1.0)  # type: ignore[union-attr]
    with pytest.raises(TrainingDiverged, match="NaN"):  # infinity minus infinity
        case.rank(block_users=64, by_tiles=True)


def test_tiles_cover_all_items_and_are_almost_equally_wide() -> None:
    for n_items in (1, 31, 1024, 1025, 99_536):
        bounds = divide_items(n_items)
        widths = np.diff(bounds)
        assert (bounds[0], bounds[-1]) == (0, n_items)
        assert widths.max() - widths.min() <= 1
        assert widths.max() <= 1024
