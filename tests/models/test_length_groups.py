from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.models.length_groups import find_length_groups, group_by_length


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_lengths_of_a_group_differ_by_less_than_a_factor_of_two(lengths: list[int]) -> None:
    groups = find_length_groups(torch.tensor(lengths))
    assert sorted(row for rows in groups for row in rows.tolist()) == [i for i, n in enumerate(lengths) if n]
    for rows in groups:
        of_group = [lengths[row] for row in rows.tolist()]
        assert max(of_group) < 2 * min(of_group) or max(of_group) == min(of_group)
    assert len(groups) == len({(n - 1).bit_length() for n in lengths if n})


def test_a_batch_is_cut_to_the_longest_history_of_each_group() -> None:
    items = torch.tensor([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [0, 0, 0, 0, 0], [5, 6, 7, 8, 0]])
    targets = torch.tensor([[0, 3, 9, 0, 0], [5, 0, 0, 0, 0], [0, 0, 0, 0, 0], [6, 7, 8, 9, 0]])
    parts = [(left.tolist(), right.tolist()) for left, right in group_by_length(items, targets)]
    assert parts == [
        ([[4]], [[5]]),
        ([[1, 2, 3, 0], [5, 6, 7, 8]], [[0, 3, 9, 0], [6, 7, 8, 9]]),
    ]
