from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hellm_recbole.baselines.code_search import CodeTree, search_items, spread_scores

N_DIGITS = 5


def draw_codes(n_items: int, n_levels: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    numbers = rng.choice(N_DIGITS**n_levels, size=n_items, replace=False)
    return torch.from_numpy(np.stack([numbers // N_DIGITS**level % N_DIGITS for level in range(n_levels)], axis=1))


class TableScorer:
    """Log-probabilities of each next digit, which depend on the user and the whole prefix; it records the prefixes."""

    def __init__(self, n_users: int, seed: int) -> None:
        self.n_users, self.seed = n_users, seed
        self.prefixes: list[list[tuple[int, ...]]] = [[()] for _ in range(n_users)]
        self.asked: set[tuple[int, ...]] = set()

    def look_up(self, user: int, prefix: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(hash((self.seed, user, prefix)) % 2**40)
        return torch.randn(N_DIGITS, generator=generator).log_softmax(dim=0)

    def start(self) -> Tensor:
        return self._list_all()

    def extend(self, parent: Tensor, digit: Tensor) -> Tensor:
        self.prefixes = [
            [(*self.prefixes[user][int(p)], int(d)) for p, d in zip(parent[user], digit[user], strict=True)]
            for user in range(self.n_users)
        ]
        return self._list_all()

    def _list_all(self) -> Tensor:
        self.asked |= {prefix for prefixes in self.prefixes for prefix in prefixes}
        rows = [[self.look_up(user, prefix) for prefix in prefixes] for user, prefixes in enumerate(self.prefixes)]
        return torch.stack([torch.stack(row) for row in rows])


def score_every_item(codes: Tensor, scorer: TableScorer, user: int) -> list[float]:
    """Add up the log-probabilities of each item's digits, item by item."""
    return [
        sum(float(scorer.look_up(user, tuple(code[:level]))[digit]) for level, digit in enumerate(code))
        for code in codes.tolist()
    ]


def search_slowly(codes: Tensor, scorer: TableScorer, user: int, beam_size: int) -> dict[int, float]:
    """Search with lists and dictionaries: item -> log-probability."""
    rows = [tuple(code) for code in codes.tolist()]
    beam: dict[tuple[int, ...], float] = {(): 0.0}
    for depth in range(1, codes.shape[1] + 1):
        children = {prefix for row in rows if (prefix := row[:depth])[:-1] in beam}
        scored = {
            prefix: beam[prefix[:-1]] + float(scorer.look_up(user, prefix[:-1])[prefix[-1]]) for prefix in children
        }
        beam = dict(sorted(scored.items(), key=lambda pair: -pair[1])[:beam_size])
    return {rows.index(prefix): score for prefix, score in beam.items()}


def test_the_tree_has_the_children_that_items_have() -> None:
    codes = draw_codes(40, 3, seed=0)
    tree = CodeTree(codes, N_DIGITS)
    nodes: dict[tuple[int, ...], int] = {(): 0}
    for depth in range(3):
        prefixes = sorted({tuple(code[: depth + 1]) for code in codes.tolist()})
        for prefix, number in list(nodes.items()):
            child, exists = tree.find_children(depth, torch.tensor([[number]]))
            for digit in range(N_DIGITS):
                assert bool(exists[0, 0, digit]) == ((*prefix, digit) in prefixes)
                if exists[0, 0, digit]:
                    assert int(child[0, 0, digit]) == prefixes.index((*prefix, digit))
        nodes = {prefix: number for number, prefix in enumerate(prefixes)}
    assert [tuple(codes[item].tolist()) for item in tree.leaf_item] == prefixes


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n_items", "n_levels"), [(1, 1), (5, 1), (23, 3), (60, 4)])
def test_a_beam_as_large_as_the_catalogue_scores_every_item(n_items: int, n_levels: int, seed: int) -> None:
    codes = draw_codes(n_items, n_levels, seed)
    for beam_size in (n_items, n_items + 100):
        scorer = TableScorer(3, seed)
        item, score = search_items(CodeTree(codes, N_DIGITS), scorer, 3, beam_size)
        assert item.shape == score.shape == (3, n_items)
        rows = spread_scores(item, score, n_items)
        for user in range(3):
            assert sorted(item[user].tolist()) == list(range(n_items))
            assert rows[user].tolist() == pytest.approx(score_every_item(codes, scorer, user), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("beam_size", [1, 2, 7, 20])
def test_a_small_beam_finds_what_a_plain_search_finds(beam_size: int, seed: int) -> None:
    codes = draw_codes(50, 3, seed)
    scorer = TableScorer(2, seed)
    item, score = search_items(CodeTree(codes, N_DIGITS), scorer, 2, beam_size)
    rows = [tuple(code) for code in codes.tolist()]
    assert scorer.asked <= {row[:depth] for row in rows for depth in range(3)}  # no code that no item has
    for user in range(2):
        expected = search_slowly(codes, scorer, user, beam_size)
        found = {int(i): float(s) for i, s in zip(item[user], score[user], strict=True) if s > -torch.inf}
        assert found == pytest.approx(expected, abs=1e-5)
        assert score[user].tolist() == sorted(score[user].tolist(), reverse=True)


def test_a_beam_that_finds_fewer_items_than_it_may_marks_the_rest() -> None:
    codes = torch.tensor([[0, 0], [1, 0], [1, 1], [1, 2]])

    class PrefersFirst:
        def start(self) -> Tensor:
            return torch.tensor([[[0.9, 0.05, 0.05, 0.0, 0.0]]]).log()

        def extend(self, parent: Tensor, digit: Tensor) -> Tensor:
            return torch.zeros(1, len(digit[0]), N_DIGITS)

    item, score = search_items(CodeTree(codes, N_DIGITS), PrefersFirst(), 1, 1)
    assert (item.tolist(), score.shape) == ([[0]], (1, 1))
    padded = torch.cat([score, torch.tensor([[-torch.inf]])], dim=1), torch.tensor([[0, 0]])
    rows = spread_scores(padded[1], padded[0], 4)
    assert rows[0, 0] == score[0, 0]
    assert (rows[0, 1:] == score[0, 0] - 1).all()


def test_items_beyond_the_beam_are_tied_below_all_others() -> None:
    rows = spread_scores(torch.tensor([[3, 1], [0, 2]]), torch.tensor([[-0.5, -2.0], [-1.0, -torch.inf]]), 5)
    assert rows.tolist() == [[-3.0, -2.0, -3.0, -0.5, -3.0], [-1.0, -2.0, -2.0, -2.0, -2.0]]
