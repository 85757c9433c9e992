"""Check the parts of a split: repeats, training after test, cold items, short users, and popularity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.diagnostics.findings import Finding, Severity, format_share
from hellm_recbole.data.diagnostics.time_order import has_times, sort_interactions
from hellm_recbole.data.split import MIN_EVALUATED, TEST, TRAIN, Split
from hellm_recbole.types import IdArray

POPULAR = 20  # cut-off of Recall; model selection uses the same one


def find_repeated_pairs(dataset: Dataset) -> int:
    """Count the interactions that repeat another one of the same user with the same item."""
    return dataset.n_interactions - len(np.unique(_number_pairs(dataset, dataset.user, dataset.item)))


def check_repeats(dataset: Dataset, split: Split) -> Iterator[Finding]:
    """Report repeated (user, item) pairs, and targets that occur in earlier interactions of their user."""
    if n_repeats := find_repeated_pairs(dataset):
        yield Finding(
            "repeated pairs",
            "note",
            format_share(
                n_repeats, dataset.n_interactions, "interactions repeat one of the same user with the same item"
            ),
            "Such a pair weighs more in training; a tool that drops repeats would make another split.",
        )
    train = _number_pairs(dataset, split.train.repeat_users(), split.train.items)
    valid = _number_pairs(dataset, split.valid.user, split.valid.item)
    test = _number_pairs(dataset, split.test.user, split.test.item)
    if split.kind == "given":
        severity: Severity = "error"
        effect = "The parts overlap, so a model is tested on what it was trained on; remove the pair from one of them."
    else:
        severity = "warning"
        effect = (
            "A model finds such a target by memory, and the masking of the history, which spares targets, makes it "
            "easier still; drop repeats from the source to compare predictions of new items only."
        )
    for name, earlier, targets in (("validation", train, valid), ("test", np.append(train, valid), test)):
        if n_repeated := int(np.sum(np.isin(targets, earlier))):
            figure = format_share(
                n_repeated, len(targets), f"{name} targets are in the same user's earlier interactions"
            )
            yield Finding("repeated targets", severity, figure, effect)


def _number_pairs(dataset: Dataset, user: IdArray, item: IdArray) -> IdArray:
    """Encode each (user, item) pair as one number."""
    return user * (dataset.n_items + 1) + item


def check_given_parts(dataset: Dataset, split: Split) -> Iterator[Finding]:
    """Report faults of a given split: training after test, and users without training interactions."""
    if dataset.time is not None and dataset.part is not None and dataset.time_known:
        is_test, is_train = dataset.part == TEST, dataset.part == TRAIN
        first_test = np.full(dataset.n_users + 1, np.inf)
        np.minimum.at(first_test, dataset.user[is_test], dataset.time[is_test])
        is_late = is_train & (dataset.time > first_test[dataset.user])
        if is_late.any():
            n_users = len(np.unique(dataset.user[is_late]))
            yield Finding(
                "training after test",
                "warning",
                f"{format_share(int(is_late.sum()), int(is_train.sum()), 'training interactions')} are later than a "
                f"test target of the same user; {n_users:,} users",
                "Models train on what came after the target, so results are not those of a forecast; compare them only "
                "with results on these same parts.",
            )
    is_untrained = ~np.isin(np.unique(split.test.user), split.train.repeat_users())
    if n_untrained := int(is_untrained.sum()):
        yield Finding(
            "users without training",
            "warning",
            format_share(n_untrained, len(is_untrained), "users with test targets have no training interaction"),
            "A model with an embedding for each user knows nothing of them, and one that reads a history has their "
            "validation items at most; leave them out of the test part, or report them apart.",
        )


def check_future_interactions(dataset: Dataset) -> Iterator[Finding]:
    """Report how many test targets are earlier than training interactions of other users."""
    if not has_times(dataset):
        return
    ordered = sort_interactions(dataset)
    test = ordered.last[ordered.count[ordered.user[ordered.last]] >= MIN_EVALUATED]
    is_train = np.ones(len(ordered.user), dtype=np.bool_)
    is_train[test] = is_train[test - 1] = False
    share = float(np.mean(ordered.time[test] < ordered.time[is_train].max()))
    if share:
        yield Finding(
            "test before training ends",
            "note",
            f"{share:.1%} of test targets are earlier than the latest training interaction of all users",
            "As with every leave-one-out split, a model learns from other users' future; for a forecast, split by one "
            "point in time.",
        )


def check_cold_items(split: Split) -> Iterator[Finding]:
    """Report items without training interactions."""
    is_trained = np.zeros(split.n_items + 1, dtype=np.bool_)
    is_trained[split.train.items] = True
    n_cold = int(np.sum(~is_trained[1:]))
    if not n_cold:
        return
    n_targets = int(np.sum(~is_trained[split.test.item]))
    yield Finding(
        "cold items",
        "warning" if n_targets else "note",
        f"{format_share(n_cold, split.n_items, 'items have no training interaction')}; "
        f"{format_share(n_targets, len(split.test), 'test targets are such items')}",
        "A model that learns an embedding for each item can rank them only by chance, one that reads features can do "
        "better; compare the two on the other targets too.",
    )


def check_short_users(split: Split) -> Iterator[Finding]:
    """Report users with too few interactions to be evaluated."""
    if split.n_short_users:
        yield Finding(
            "short users",
            "note",
            format_share(split.n_short_users, split.n_users, f"users have fewer than {MIN_EVALUATED} interactions"),
            "They are trained on and not evaluated; a tool that drops or tests them averages over other users.",
        )


def measure_popularity(split: Split) -> Iterator[Finding]:
    """Report the Recall of the most popular items, without masking of the history.

    An item with the same count as the target is ranked before the target, as in the evaluation of models.
    """
    count = np.bincount(split.train.items, minlength=split.n_items + 1)
    rank = split.n_items - np.searchsorted(np.sort(count[1:]), count[split.test.item])
    hits = np.bincount(split.test.user, rank <= POPULAR, split.n_users + 1)
    n_targets = np.bincount(split.test.user, minlength=split.n_users + 1)
    recall = float(np.mean(hits[n_targets > 0] / n_targets[n_targets > 0]))
    yield Finding(
        "popularity",
        "note",
        f"Recall@{POPULAR} of the most popular training items is {recall:.2%}, by chance "
        f"{min(1.0, POPULAR / split.n_items):.2%}",
        "This is what a model that knows no user reaches without masking; a row near it has learned little more.",
    )
