from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError


def make_dataset(
    user: list[int],
    item: list[int],
    *,
    time: list[float] | None = None,
    part: list[int] | None = None,
    tokens: str = "abcdefgh",
) -> Dataset:
    n_users, n_items = max(user), max(item)
    return Dataset(
        name="hand",
        user_tokens=np.array(["", *tokens[:n_users]]),
        item_tokens=np.array(["", *(f"i{n}" for n in range(1, n_items + 1))]),
        user=np.array(user),
        item=np.array(item),
        time=None if time is None else np.array(time),
        time_known=time is not None,
        part=None if part is None else np.array(part, dtype=np.int8),
        features={},
        k_core=0,
        n_dropped=0,
        paper=None,
    )


def test_the_last_item_is_test_and_the_one_before_is_validation() -> None:
    split = split_dataset(make_dataset([1, 1, 1, 1], [1, 2, 3, 4]))
    assert split.train.get_items(1).tolist() == [1, 2]
    assert (split.valid.user.tolist(), split.valid.item.tolist()) == ([1], [3])
    assert (split.test.user.tolist(), split.test.item.tolist()) == ([1], [4])
    assert split.make_test_history().get_items(1).tolist() == [1, 2, 3]


def test_time_orders_and_ties_keep_the_file_order() -> None:
    split = split_dataset(make_dataset([1, 1, 1, 1], [4, 1, 2, 3], time=[9.0, 1.0, 5.0, 5.0]))
    assert split.train.get_items(1).tolist() == [1, 2]
    assert split.valid.item.tolist() == [3]
    assert split.test.item.tolist() == [4]


def test_users_with_one_or_two_interactions_train_but_are_not_evaluated() -> None:
    split = split_dataset(make_dataset([1, 2, 2, 3, 3, 3], [1, 1, 2, 1, 2, 3]))
    assert split.n_short_users == 2
    assert split.train.get_items(1).tolist() == [1]
    assert split.train.get_items(2).tolist() == [1, 2]
    assert split.test.user.tolist() == [3]


def test_a_dataset_without_users_to_evaluate_is_refused() -> None:
    with pytest.raises(DataError, match="there is no interaction for the valid part"):
        split_dataset(make_dataset([1, 1], [1, 2]))


def test_a_given_split_is_kept_with_several_targets() -> None:
    split = split_dataset(make_dataset([1, 1, 1, 1, 1], [1, 2, 3, 4, 5], part=[0, 2, 1, 0, 2]))
    assert split.kind == "given"
    assert split.train.get_items(1).tolist() == [1, 4]
    assert split.valid.item.tolist() == [3]
    assert (split.test.user.tolist(), split.test.item.tolist()) == ([1, 1], [2, 5])


def test_a_given_split_without_a_part_is_refused() -> None:
    with pytest.raises(DataError, match="test part"):
        split_dataset(make_dataset([1, 1], [1, 2], part=[0, 1]))


def test_the_hash_does_not_depend_on_the_order_of_users_in_the_file() -> None:
    one = split_dataset(make_dataset([1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3], tokens="ab"))
    other = split_dataset(make_dataset([1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3], tokens="ba"))
    assert one.sha256 == other.sha256


@pytest.mark.parametrize("items", [[1, 3, 2], [2, 1, 3]])
def test_the_hash_depends_on_what_is_held_out_and_on_the_order(items: list[int]) -> None:
    assert (
        split_dataset(make_dataset([1, 1, 1, 1], [1, 2, 3, 4])).sha256
        != split_dataset(make_dataset([1, 1, 1, 1], [*items, 4])).sha256
    )


def test_selection_data_contains_no_test_part() -> None:
    selection = split_dataset(make_dataset([1, 1, 1, 1], [1, 2, 3, 4])).make_selection_data()
    items = [*selection.train.history.items.tolist(), *selection.valid.item.tolist()]
    assert 4 not in items
    assert not hasattr(selection, "test")
    assert not hasattr(selection.train, "test")
