from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.data.splits.parts import divide_by_ratio, divide_by_time, draw_cold_items, find_cuts, take_share


@pytest.mark.parametrize(("valid", "test"), [(0.1, 0.1), (0.2, 0.2), (0.1, 0.2), (0.01, 0.97)])
def test_the_ratio_is_that_of_recbole(valid: float, test: float) -> None:
    dataset = pytest.importorskip("recbole.data.dataset")
    for count in range(3, 120):
        part, n_short = divide_by_ratio(np.ones(count, dtype=np.int64), 1, valid, test)
        _, *ends = dataset.Dataset._calcu_split_ids(None, count, [1 - valid - test, valid, test])
        first, second = _, *ends[:1]
        assert np.bincount(part, minlength=3).tolist() == [first, second - first, count - second], count
        assert np.all(np.diff(part) >= 0)
        assert n_short == 0


def test_users_are_divided_one_by_one() -> None:
    user = np.repeat([1, 2, 4], [3, 10, 2])  # user 3 has no interaction
    part, n_short = divide_by_ratio(user, 4, 0.2, 0.3)
    assert part.tolist() == [0, 1, 2, *[0] * 5, 1, 1, 2, 2, 2, 0, 0]
    assert n_short == 1


def test_shares_are_decimal() -> None:
    assert int(0.29 * 100) == 28  # what binary numbers would give
    assert take_share(0.29, 100) == 29


def test_equal_times_are_never_divided() -> None:
    time = np.array([1, 2, 2, 2, 3])
    cuts = find_cuts(time, 0.2, 0.4)
    assert cuts == (2, 2)  # `named` refuses them
    assert find_cuts(np.array([1, 2, 3, 3, 3]), 0.2, 0.2) == (3, 3)
    assert find_cuts(np.array([1, 2, 3, 4, 4]), 0.2, 0.2) == (4, 4)
    assert divide_by_time(time, 2, 3).tolist() == [0, 1, 1, 1, 2]


def test_cold_items_depend_on_seed_and_tokens_only() -> None:
    tokens = [f"i{number}" for number in range(1000)]
    part = draw_cold_items(tokens, 0.1, 0.2, 7)
    assert np.bincount(part).tolist() == [700, 100, 200]
    assert draw_cold_items(tokens[::-1], 0.1, 0.2, 7).tolist() == part[::-1].tolist()
    other = draw_cold_items(tokens, 0.1, 0.2, 8)
    shared = np.sum((part == 2) & (other == 2))
    assert 20 < shared < 60  # 40 are expected by chance
