from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.experiments.published import PublishedRun
from hellm_recbole.experiments.published_check import check_published_run
from tests.toy_published import describe_random_run, rank_randomly


def publish_randomly(split: Split) -> PublishedRun:
    """Build the published run of random ranks: users have numbers, as in the file."""
    numbered = {}
    for phase, ranks in rank_randomly(split, seed=3).items():
        numbers = {user: f"{number:04d}" for number, user in enumerate(sorted({*ranks.user.tolist()}))}
        numbered[phase] = replace(ranks, user=np.array([numbers[user] for user in ranks.user.tolist()]))
    return PublishedRun(describe_random_run(split, numbered), numbered)


def change_test(run: PublishedRun, **arrays: Callable[[Any], Any]) -> PublishedRun:
    """Change arrays of the test part."""
    test = run.ranks["test"]
    changed = replace(test, **{name: change(getattr(test, name).copy()) for name, change in arrays.items()})
    return replace(run, ranks={**run.ranks, "test": changed})


def set_first(value: int) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[0] = value
        return array

    return change


def test_ranks_of_the_split_agree(toy_split: Split) -> None:
    assert check_published_run(publish_randomly(toy_split), toy_split) == []


def test_several_targets_and_repeated_items_agree(toy_dataset: Dataset) -> None:
    """A given split has several targets for a user, and a user may meet the target's item in the history."""
    item = toy_dataset.item.copy()
    starts = np.flatnonzero(np.append(True, toy_dataset.user[1:] != toy_dataset.user[:-1]))
    item[starts + 1] = item[starts]  # each user has an item twice in training
    part = np.zeros(len(item), dtype=np.int8)
    for start, end in zip(starts, [*starts[1:], len(item)], strict=True):
        part[end - 3 : end] = (1, 2, 2)
        item[end - 1] = item[start]  # a test target that the history has
    split = split_dataset(replace(toy_dataset, item=item, part=part))
    assert len(split.test) == 2 * toy_dataset.n_users
    assert check_published_run(publish_randomly(split), split) == []


def test_another_dataset_is_found(toy_dataset: Dataset, toy_split: Split) -> None:
    item = toy_dataset.item.copy()
    item[[0, 1]] = item[[1, 0]]
    other = split_dataset(replace(toy_dataset, item=item))
    (problem,) = check_published_run(publish_randomly(toy_split), other)
    assert "the split hash is" in problem
    assert toy_split.sha256[:12] in problem


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "other"}, "the dataset is other, and toy in the dataset"),
        ({"split_kind": "given"}, "the kind of split is given"),
        ({"n_candidates": 39}, "the number of candidates is 39, and 40 in the dataset"),
        ({"cutoffs": (5,)}, "valid: N@10 is"),
        ({"mask_history": "none"}, "from the ranks"),
    ],
)
def test_a_record_that_does_not_fit_is_found(toy_split: Split, changes: dict[str, Any], said: str) -> None:
    run = publish_randomly(toy_split)
    problems = check_published_run(replace(run, result=replace(run.result, **changes)), toy_split)
    assert any(said in problem for problem in problems)


def test_other_metrics_are_found(toy_split: Split) -> None:
    run = publish_randomly(toy_split)
    metrics: Any = {"valid": run.result.metrics["valid"], "test": {**run.result.metrics["test"], "R@10": 0.875}}
    (problem,) = check_published_run(replace(run, result=replace(run.result, metrics=metrics)), toy_split)
    assert problem.startswith("test: R@10 is 0.875 in the record, and ")


def test_a_rank_above_the_number_of_candidates_is_found(toy_split: Split) -> None:
    run = publish_randomly(toy_split)
    largest = toy_split.n_items - int(run.ranks["test"].history_length[0])
    problems = check_published_run(
        change_test(run, rank=set_first(largest + 1), rank_none=set_first(toy_split.n_items)), toy_split
    )
    assert "test: rank of 1 targets is larger than the number of candidates" in problems
    problems = check_published_run(change_test(run, rank_none=set_first(toy_split.n_items + 1)), toy_split)
    assert "test: rank_none of 1 targets is larger than the number of candidates" in problems


def test_a_rank_that_the_mask_cannot_give_is_found(toy_split: Split) -> None:
    run = publish_randomly(toy_split)
    position = int(np.argmax(run.ranks["test"].rank_none))
    bad = run.ranks["test"].rank.copy()
    bad[position] = 1
    problems = check_published_run(change_test(run, rank=lambda _: bad), toy_split)
    assert "test: rank of 1 targets does not fit rank_none and the number of masked items" in problems


def test_ranks_in_another_order_are_found(toy_split: Split) -> None:
    run = publish_randomly(toy_split)
    names = ("rank", "rank_train", "rank_none", "history_length", "item_count")
    backwards = change_test(run, **dict.fromkeys(names, lambda array: array[::-1]))
    problems = check_published_run(backwards, toy_split)
    assert any("history_length of" in problem for problem in problems)
    assert any("item_count of" in problem for problem in problems)


def test_other_users_are_found(toy_split: Split) -> None:
    run = publish_randomly(toy_split)
    problems = check_published_run(change_test(run, user=lambda array: array[::-1]), toy_split)
    assert "test: ranks of 60 targets of 60 users are in another order of users" in problems


def test_missing_targets_are_found(toy_split: Split) -> None:
    run = publish_randomly(toy_split)
    names = ("user", "item", "rank", "rank_train", "rank_none", "history_length", "item_count")
    short = change_test(run, **dict.fromkeys(names, lambda array: array[:-1]))
    assert "test: 59 targets of 59 users instead of 60 targets of 60 users" in check_published_run(short, toy_split)
    valid = replace(run, ranks={"valid": run.ranks["valid"]})
    assert "the ranks have the parts valid" in check_published_run(valid, toy_split)
