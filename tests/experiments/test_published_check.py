from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.experiments.published import PublishedRun, summarize_ranks
from hellm_recbole.experiments.published_check import check_published_run
from tests.toy_published import CUTOFFS, describe_random_run, rank_randomly


def publish_randomly(split: Split) -> PublishedRun:
    """Build the published run of random ranks: users have numbers, as in the file."""
    numbered = {}
    for phase, ranks in rank_randomly(split, seed=3).items():
        numbers = {user: f"{number:04d}" for number, user in enumerate(sorted({*ranks.user.tolist()}))}
        numbered[phase] = replace(ranks, user=np.array([numbers[user] for user in ranks.user.tolist()]))
    published: Any = {
        "run_sha256": None,
        "settings_sha256": "0" * 64,
        "cut": (),
        "metrics": summarize_ranks(numbered, CUTOFFS),
    }
    return PublishedRun(describe_random_run(split, numbered, published=published), numbered)


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


def test_other_counts_are_found(toy_split: Split) -> None:
    run = publish_randomly(toy_split)
    counts: Any = {**run.result.counts, "train": 7}
    problems = check_published_run(replace(run, result=replace(run.result, counts=counts)), toy_split)
    assert problems == [f"the count train is 7, and {len(toy_split.train.items)} in the dataset"]


@pytest.mark.parametrize("kind", [("sequential", "hellm_recbole"), ("collaborative", "recbole")])
def test_another_family_or_source_is_found(toy_split: Split, kind: Any) -> None:
    run = publish_randomly(toy_split)
    assert check_published_run(run, toy_split, ("collaborative", "hellm_recbole")) == []
    (problem,) = check_published_run(run, toy_split, kind)
    assert problem.startswith("the model has family collaborative and source hellm_recbole, and ")
    assert problem.endswith(f"{kind[0]} and {kind[1]} in the registry")


def test_ranks_are_found_that_changed_beyond_all_cutoffs(toy_split: Split) -> None:
    """The masks allow the change, and it changes no metric of the result."""
    run = publish_randomly(toy_split)
    ranks = run.ranks["test"]
    position = int(np.flatnonzero((ranks.rank > max(CUTOFFS) + 1) & (ranks.rank_train > ranks.rank))[0])

    def worsen(array: Any) -> Any:
        array[position] += 1
        return array

    problems = check_published_run(change_test(run, rank=worsen), toy_split)
    assert problems == ["test: with mask seen, the record has another mean_rank than the ranks"]


@pytest.mark.parametrize("policy", ["seen", "train", "none"])
@pytest.mark.parametrize("phase", ["valid", "test"])
def test_other_published_metrics_are_found(toy_split: Split, phase: str, policy: str) -> None:
    run = publish_randomly(toy_split)
    assert run.result.published is not None
    run.result.published["metrics"][phase][policy]["N@5"] += 1e-6
    said = f"{phase}: with mask {policy}, the record has another N@5 than the ranks"
    assert check_published_run(run, toy_split) == [said]


def test_missing_published_metrics_are_found(toy_split: Split) -> None:
    run = publish_randomly(toy_split)
    assert run.result.published is not None
    metrics = run.result.published["metrics"]
    del metrics["test"]["none"]
    said = "the published metrics are not those of both phases and all masks"
    assert check_published_run(run, toy_split) == [said]
    del run.result.published["metrics"]
    (problem,) = check_published_run(run, toy_split)
    assert "lacks the metrics of all masks" in problem


def test_the_rank_with_fewer_masked_items_is_never_better(toy_split: Split) -> None:
    run = publish_randomly(toy_split)
    ranks = run.ranks["test"]
    assert np.all((ranks.rank <= ranks.rank_train) & (ranks.rank_train <= ranks.rank_none))
    position = int(np.flatnonzero(ranks.rank_train < ranks.rank_none)[0])
    for difference in (1, -2):  # leave-one-out masks one more item at test than in training
        rank = ranks.rank.copy()
        rank[position] = ranks.rank_train[position] + difference
        changed = replace(run, ranks={**run.ranks, "test": replace(ranks, rank=rank)})
        problems = check_published_run(changed, toy_split)
        assert "test: rank of 1 targets does not fit rank_train and the number of items masked in addition" in problems


@pytest.mark.filterwarnings("error")
def test_ranks_without_targets_are_found(toy_split: Split) -> None:
    run = publish_randomly(toy_split)
    names = ("user", "item", "rank", "rank_train", "rank_none", "history_length", "item_count")
    empty = change_test(run, **dict.fromkeys(names, lambda array: array[:0]))
    assert check_published_run(empty, toy_split) == ["the ranks have no targets in test"]
