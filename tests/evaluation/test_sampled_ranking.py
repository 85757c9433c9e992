from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.errors import SettingsError
from hellm_recbole.evaluation import sampled_ranking
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.evaluation.sampled_ranking import (
    DISTRIBUTIONS,
    Candidates,
    Distribution,
    ScoreReader,
    digest_negatives,
    draw_negatives,
    rank_among,
)
from hellm_recbole.types import Histories, IdArray, Targets
from tests.toy import Table

FOUR_SIGMA = 4.0


def make_case(rng: np.random.Generator, n_users: int = 7, n_items: int = 30) -> tuple[Targets, Histories]:
    """Make targets and histories of users of which some have no target and some several."""
    picks = [rng.permutation(n_items)[:8] + 1 for _ in range(n_users)]
    n_targets = [*rng.integers(0, 4, n_users - 1), 2]
    user = np.repeat(np.arange(1, n_users + 1), n_targets)
    item = np.concatenate([pick[:n] for pick, n in zip(picks, n_targets, strict=True)])
    seen = np.concatenate([pick[3:] for pick in picks])
    return Targets(user, item), Histories.from_pairs(np.repeat(np.arange(1, n_users + 1), 5), seen, n_users)


def rank_slowly(scores: Any, target: int, negatives: IdArray) -> int:
    """Rank a target among its negatives, one comparison after the other."""
    rank = 1
    for item in negatives:
        if scores[item - 1] >= scores[target - 1]:
            rank += 1
    return rank


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_ranks_equal_a_slow_loop_on_100_random_cases_with_ties(distribution: Distribution) -> None:
    n_ties = 0
    for case in range(100):
        rng = np.random.default_rng(case)
        targets, history = make_case(rng)
        table = torch.from_numpy(rng.integers(0, 6, (8, 30)).astype(np.float32))  # few values, so many ties
        popularity = rng.integers(1, 9, 30)
        negatives = draw_negatives(targets, history, popularity, Candidates(distribution, 9, case))
        reader = ScoreReader(Table(table), targets, np.concatenate([targets.item[:, None], negatives], axis=1))
        full = rank_targets(reader, targets, train=history, seen=history, block_users=3, who="x")
        plain = rank_targets(Table(table), targets, train=history, seen=history, block_users=3, who="x")
        assert full.seen.tolist() == plain.seen.tolist()
        expected = [
            rank_slowly(table[user].numpy(), item, others)
            for user, item, others in zip(targets.user, targets.item, negatives, strict=True)
        ]
        ranks = rank_among(reader.scores)
        assert ranks.tolist() == expected
        n_ties += int((ranks != 1 + (reader.scores[:, 1:] > reader.scores[:, :1]).sum(axis=1)).sum())
    assert n_ties > 300  # ties decide many ranks, and always against the target


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_negatives_are_unseen_different_and_the_same_in_each_draw(
    distribution: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets, history = make_case(np.random.default_rng(5))
    popularity = np.arange(30) % 7
    candidates = Candidates(distribution, 6, 2024)
    negatives = draw_negatives(targets, history, popularity, candidates)
    for user, drawn in zip(targets.user, negatives, strict=True):
        own = {*history.get_items(int(user)).tolist(), *targets.item[targets.user == user].tolist()}
        assert len({*drawn.tolist()}) == 6
        assert own.isdisjoint(drawn.tolist())
        if distribution == "popularity":
            assert (popularity[drawn - 1] > 0).all()  # an item without training interactions is never drawn
    monkeypatch.setattr(sampled_ranking, "_BLOCK_KEYS", 40)  # one target in a block
    assert np.array_equal(draw_negatives(targets, history, popularity, candidates), negatives)
    other = draw_negatives(targets, history, popularity, Candidates(distribution, 6, 2025))
    assert not np.array_equal(other, negatives)


def compute_inclusion(weights: list[int], number: int) -> list[Fraction]:
    """Compute the chance of each item to be among the first of draws without replacement, as fractions."""
    chance = [Fraction(0)] * len(weights)
    for order in permutations(range(len(weights)), number):
        left, probability = sum(weights), Fraction(1)
        for item in order:
            probability *= Fraction(weights[item], left)
            left -= weights[item]
        for item in order:
            chance[item] += probability
    return chance


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_items_are_drawn_with_the_chances_of_draws_without_replacement(distribution: Distribution) -> None:
    n_users, popularity = 5_000, np.array([5, 1, 2, 3, 9])  # item 5 is the target
    users = np.arange(1, n_users + 1)
    targets, history = Targets(users, np.full(n_users, 5)), Histories.from_pairs(users[:0], users[:0], n_users)
    negatives = draw_negatives(targets, history, popularity, Candidates(distribution, 2, 7))
    found = np.bincount(negatives.ravel(), minlength=6)[1:5] / n_users
    expected = compute_inclusion([1] * 4 if distribution == "uniform" else [5, 1, 2, 3], 2)
    assert sum(expected) == 2
    error = FOUR_SIGMA * (0.25 / n_users) ** 0.5
    assert np.abs(found - [float(one) for one in expected]).max() < error


def test_the_expected_rank_among_sampled_items_follows_from_the_full_rank() -> None:
    rng = np.random.default_rng(3)
    targets, history = make_case(rng)
    targets = Targets(
        *(values[np.unique(targets.user, return_index=True)[1]] for values in (targets.user, targets.item))
    )
    table = torch.from_numpy(rng.normal(size=(8, 30)).astype(np.float32))
    full = rank_targets(Table(table), targets, train=history, seen=history, block_users=9, who="x").seen
    sums = np.zeros(len(targets))
    n_draws, number = 150, 10
    for seed in range(n_draws):
        negatives = draw_negatives(targets, history, np.ones(30, int), Candidates("uniform", number, seed))
        reader = ScoreReader(Table(table), targets, np.concatenate([targets.item[:, None], negatives], axis=1))
        rank_targets(reader, targets, train=history, seen=history, block_users=9, who="x")
        sums += rank_among(reader.scores)
    n_candidates = 30 - 5  # without the history; one of them is the target
    expected = 1 + number * (full - 1) / (n_candidates - 1)
    assert np.abs(sums / n_draws - expected).max() < FOUR_SIGMA * (number * 0.25 / n_draws) ** 0.5


class FakeDataset:
    """What RecBole's sampler reads of a dataset."""

    uid_field, iid_field = "user", "item"

    def __init__(self, user: IdArray, item: IdArray, n_users: int, n_items: int) -> None:
        self.user_num, self.item_num = n_users + 1, n_items + 1
        self.inter_feat = {"user": torch.from_numpy(user), "item": torch.from_numpy(item)}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_same_candidates_give_the_metrics_of_recbole(distribution: Distribution) -> None:
    pytest.importorskip("recbole", reason="RecBole is not installed")
    from recbole.evaluator import Collector, Evaluator
    from recbole.sampler import Sampler
    from recbole.utils import EvaluatorType

    n_users, n_items, number = 80, 200, 30
    rng = np.random.default_rng(1)
    picks = np.stack([rng.permutation(n_items)[:7] + 1 for _ in range(n_users)])
    users = np.arange(1, n_users + 1)
    table = np.stack([rng.permutation(n_items) for _ in range(n_users)]).astype(np.float32)  # no ties
    parts = [FakeDataset(np.repeat(users, 6), picks[:, 1:].ravel(), n_users, n_items)]
    parts.append(FakeDataset(users, picks[:, 0], n_users, n_items))
    np.random.seed(0)  # noqa: NPY002 (RecBole draws with it)
    sampler = Sampler(["train", "test"], parts, distribution=distribution).set_phase("test")
    drawn = sampler.sample_by_user_ids(users, picks[:, 0], number).numpy().reshape(number, n_users).T
    scores = np.full((n_users, n_items + 1), -np.inf, dtype=np.float32)
    ranks = []
    for row in range(n_users):
        candidates = np.unique([picks[row, 0], *drawn[row]])  # RecBole's draws repeat items
        assert not np.isin(drawn[row], picks[row]).any()
        scores[row, candidates] = table[row, candidates - 1]
        others = candidates[candidates != picks[row, 0]]
        ranks.append(rank_among(table[row, np.array([picks[row, 0], *others]) - 1][None])[0])

    class Settings(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            return self.get(key)

    config = Settings(
        eval_args={"mode": {"valid": "uni30", "test": "uni30"}},
        metrics=["Recall", "NDCG"],
        topk=[5, 10],
        metric_decimal_place=16,
        eval_type=EvaluatorType.RANKING,
        device="cpu",
    )
    collector: Any = Collector(config)
    collector.eval_batch_collect(torch.from_numpy(scores), None, torch.arange(n_users), torch.from_numpy(picks[:, 0]))
    theirs = dict(Evaluator(config).evaluate(collector.get_data_struct()))
    ours = average_metrics(users, np.array(ranks), [5, 10])
    for metric, name in (("R", "recall"), ("N", "ndcg")):
        for k in (5, 10):
            assert ours[f"{metric}@{k}"] == pytest.approx(theirs[f"{name}@{k}"], abs=1e-9)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_expected_ranks_are_those_of_recboles_draws(distribution: Distribution) -> None:
    """With one negative, drawing with replacement, as RecBole does, is the same."""
    pytest.importorskip("recbole", reason="RecBole is not installed")
    from recbole.sampler import Sampler

    n_users, n_items = 4000, 50
    users = np.arange(1, n_users + 1)
    # Each user has the items 1 and 2 in training; item 50 is the target. The popularity comes from further users.
    rng = np.random.default_rng(2)
    crowd = rng.integers(3, n_items, 3000)
    train_user = np.concatenate([np.repeat(users, 2), np.full(3000, n_users + 1)])
    train_item = np.concatenate([np.tile([1, 2], n_users), np.sort(crowd) ** 2 // n_items + 3])
    parts = [FakeDataset(train_user, train_item, n_users + 1, n_items)]
    parts.append(FakeDataset(users, np.full(n_users, n_items), n_users + 1, n_items))
    np.random.seed(0)  # noqa: NPY002 (RecBole draws with it)
    sampler = Sampler(["train", "test"], parts, distribution=distribution).set_phase("test")
    theirs = sampler.sample_by_user_ids(users, np.full(n_users, n_items), 1).numpy()
    history = Histories.from_pairs(train_user, train_item, n_users + 1)
    popularity = np.bincount(train_item, minlength=n_items + 1)[1:]
    targets = Targets(users, np.full(n_users, n_items))
    ours = draw_negatives(targets, history, popularity, Candidates(distribution, 1, 0))[:, 0]
    error = FOUR_SIGMA * (2 * 0.25 / n_users) ** 0.5
    for level in (10, 20, 30, 40):  # items that score higher than the target, at four levels
        assert abs((ours <= level).mean() - (theirs <= level).mean()) < error
    assert ((ours <= 20).mean() > 0.5) == (distribution == "popularity")


@pytest.mark.parametrize(("distribution", "fewest"), [("uniform", 23), ("popularity", 3)])
def test_too_few_items_to_draw_from_are_refused(distribution: Distribution, fewest: int) -> None:
    history = Histories.from_pairs(np.array([1, 1]), np.array([1, 2]), 1)
    targets, popularity = Targets(np.array([1]), np.array([3])), np.array([9, 9, 9, 1, 1, 1, *[0] * 20])
    with pytest.raises(SettingsError, match=f"only {fewest} unseen items.*; choose at most {fewest}$"):
        draw_negatives(targets, history, popularity, Candidates(distribution, 24, 0))
    drawn = draw_negatives(targets, history, popularity, Candidates(distribution, fewest, 0))
    assert drawn.shape == (1, fewest)


def test_the_digest_depends_on_every_item_and_on_no_id() -> None:
    targets, negatives = Targets(np.array([1, 2]), np.array([1, 2])), np.array([[2, 3], [1, 3]])
    tokens = np.array(["", "a", "b", "c"])
    digest = digest_negatives(targets, negatives, tokens, tokens)
    assert digest == digest_negatives(targets, negatives[:, ::-1], tokens, tokens)
    assert digest != digest_negatives(targets, np.array([[2, 3], [1, 1]]), tokens, tokens)
    renumbered = Targets(np.array([3, 2]), np.array([3, 2]))
    assert digest == digest_negatives(
        renumbered, np.array([[2, 1], [3, 1]]), tokens[[0, 3, 2, 1]], tokens[[0, 3, 2, 1]]
    )
