"""Run diagnostics on a prepared dataset; each finding has a figure and its effect on a comparison of models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.atomic import (
    Dataset,
    Manifest,
    find_changed_files,
    list_features,
    load_dataset,
    read_manifest,
)
from hellm_recbole.data.split import MIN_EVALUATED, TEST, TRAIN, Split, split_dataset
from hellm_recbole.data.times import TIME
from hellm_recbole.data.tsv import read_table
from hellm_recbole.errors import DataError
from hellm_recbole.graphs.neighbors import find_nearest_neighbors
from hellm_recbole.types import FloatArray, IdArray, Targets, TokenArray

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

FAR = 3.0  # standard errors; by chance, a deviation is larger in about 3 of 1,000 cases
TWIN_COSINE = 0.9999  # smallest cosine of items that count as equal; rounding to float16 changes it by less than 1e-6
EXACT_ITEMS = 50_000  # largest number of items for comparing all pairs; above it, only equal rows count
NORM_RATIO = 10.0  # longest row / median row; at 10, a row has 100 times the weight in a squared error
MIN_COMPARED = 30  # users; the mean over fewer users is not normal enough for the test with FAR
POPULAR = 20  # cut-off of Recall; model selection uses the same one

BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """A property of a dataset that affects the interpretation of results.

    Attributes:
        name: short name, the same on every dataset.
        severity: `error` makes results wrong, `warning` changes the comparison, `note` does neither.
        figure: numbers that show the property.
        effect: effect on a comparison of models, and what the reader can do.
    """

    name: str
    severity: Severity
    figure: str
    effect: str


@dataclass(frozen=True)
class Examination:
    """A prepared dataset and the findings about it.

    Attributes:
        manifest: manifest of the dataset.
        dataset: the dataset, with all features that fit its items.
        split: split of the dataset.
        findings: errors first, then warnings, then notes.
    """

    manifest: Manifest
    dataset: Dataset
    split: Split
    findings: tuple[Finding, ...]


def diagnose(folder: Path) -> list[Finding]:
    """Find data warnings about a prepared dataset: errors first, then warnings, then notes.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty; faulty features are a finding.
    """
    return list(examine(folder).findings)


def examine(folder: Path) -> Examination:
    """Run the diagnostics of `diagnose`, and return the dataset and its split as well as the findings.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty; faulty features are a finding.
    """
    manifest = read_manifest(folder)
    dataset, findings = _load_usable_features(folder)
    split = split_dataset(dataset)
    findings += [
        *_check_files(folder, manifest),
        *_check_time_precision(folder, manifest, dataset),
        *_check_ties(dataset, split),
        *_check_id_order(dataset, split),
        *_check_row_order(dataset),
        *_check_repeats(dataset, split),
        *(_check_given_parts(dataset, split) if split.kind == "given" else _check_future_interactions(dataset)),
        *_check_cold_items(split),
        *_check_short_users(split),
        *_measure_popularity(split),
        *_check_texts(split),
    ]
    for modality, matrix in dataset.features.items():
        findings += _check_features(modality, matrix[1:], dataset.covered[modality][1:], manifest, split)
        findings += _check_similarity(modality, matrix, split)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Examination(manifest, dataset, split, tuple(findings))


def measure_tie_share(dataset: Dataset) -> float | None:
    """Measure the share of users whose last two interactions have the same time.

    Returns:
        Share among the users with two or more interactions; None if the source has no times, or if there is no such
        user.
    """
    if not _has_times(dataset):
        return None
    ordered = _sort_interactions(dataset)
    last = ordered.last[ordered.count[ordered.user[ordered.last]] >= 2]
    return float(np.mean(ordered.time[last] == ordered.time[last - 1])) if len(last) else None


def find_repeated_pairs(dataset: Dataset) -> int:
    """Count the interactions that repeat another one of the same user with the same item."""
    return dataset.n_interactions - len(np.unique(_number_pairs(dataset, dataset.user, dataset.item)))


def estimate_changes(dataset: Dataset) -> tuple[Float64Array, Float64Array]:
    """Estimate how likely a random order of ties changes the targets of a leave-one-out split, for each evaluated user.

    A user's interactions with equal times form a group, and all orders of a group are equally likely. In a group of k
    interactions, each one is the last with probability 1 / k, and the last but one with the same probability. So an
    item that occurs c times in the group stays the target with probability c / k.

    Returns:
        [n] probability that the test target changes, [n] probability that the validation target changes; in the order
        of user ids, without users with fewer than three interactions.
    """
    ordered = _sort_interactions(dataset)
    group = np.cumsum(_mark_changes(ordered.user, ordered.time)) - 1
    size = np.bincount(group)[group]
    _, inverse, counts = np.unique(
        group * (dataset.n_items + 1) + ordered.item, return_inverse=True, return_counts=True
    )
    change = 1 - counts[inverse] / size  # [E] probability that this position gets another item of the group
    test = ordered.last[ordered.count[ordered.user[ordered.last]] >= MIN_EVALUATED]
    return change[test], change[test - 1]


@dataclass(frozen=True)
class _SortedInteractions:
    """Interactions sorted by user, then time.

    Attributes:
        user: [E] user ids.
        item: [E] item ids.
        time: [E] numbers in the order of the times, or positions in the file if there are no times.
        last: index of the last interaction of each user who has one.
        count: [U + 1] number of interactions of each user id.
    """

    user: IdArray
    item: IdArray
    time: Float64Array
    last: IdArray
    count: IdArray


def _sort_interactions(dataset: Dataset) -> _SortedInteractions:
    """Sort interactions by user, then time."""
    time = np.arange(dataset.n_interactions, dtype=np.float64) if dataset.time is None else dataset.time
    order = np.lexsort((time, dataset.user))
    user = dataset.user[order]
    last = np.flatnonzero(np.append(user[1:] != user[:-1], True))
    return _SortedInteractions(
        user, dataset.item[order], time[order], last, np.bincount(user, minlength=dataset.n_users + 1)
    )


def _mark_changes(*keys: npt.NDArray[np.int64] | Float64Array) -> BoolArray:
    """Return [E] whether an entry differs from the one before it in one of the keys; the first entry is True."""
    differs = np.zeros(len(keys[0]), dtype=np.bool_)
    differs[0] = True
    for key in keys:
        differs[1:] |= key[1:] != key[:-1]
    return differs


def _has_times(dataset: Dataset) -> bool:
    """Return whether the times of the interactions are known."""
    return dataset.time is not None and dataset.time_known


def _format_share(part: int, whole: int, label: str) -> str:
    """Format a share, such as `1 of 3 items`."""
    return f"{part:,} of {whole:,} {label}"


def _load_usable_features(folder: Path) -> tuple[Dataset, list[Finding]]:
    """Load the dataset with the features that fit its items, and report a finding for each other modality."""
    try:
        return load_dataset(folder, modalities=None, verify=False), []
    except DataError:
        dataset = load_dataset(
            folder, modalities=(), verify=False
        )  # raises the error again if the features are not its cause
    features, covered, findings = {}, {}, []
    for modality in list_features(folder):
        try:
            loaded = load_dataset(folder, modalities=(modality,), verify=False)
            features[modality], covered[modality] = loaded.features[modality], loaded.covered[modality]
        except DataError as error:
            effect = "No model can be run with this modality; fix its files or prepare the dataset again with --fresh."
            findings.append(Finding("features do not fit", "error", f"{modality}: {error}", effect))
    return replace(dataset, features=features, covered=covered), findings


def _check_files(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """Report files that changed after they were prepared."""
    for name in find_changed_files(folder, manifest):
        yield Finding(
            "file changed",
            "error",
            f"{name} has changed since it was prepared",
            "Results would not be of the data that the manifest describes, and nobody else could prepare it; prepare "
            "the dataset again with --fresh.",
        )


def _check_time_precision(folder: Path, manifest: Manifest, dataset: Dataset) -> Iterator[Finding]:
    """Report times that become equal in float32.

    This concerns only datasets of an earlier version; their manifest does not name the column of the times.
    """
    if "time_column" in manifest or dataset.time is None:
        return
    with np.errstate(over="ignore"):
        rounded = read_table(folder / f"{dataset.name}.inter", typed=True).numbers(TIME).astype(np.float32)
    order = np.lexsort((dataset.time, dataset.user))
    affected = dataset.user[order][order != np.lexsort((rounded, dataset.user))]
    if len(affected):
        yield Finding(
            "times too fine for RecBole",
            "warning",
            _format_share(
                len(np.unique(affected)), dataset.n_users, "users have another order where times are float32"
            ),
            "RecBole keeps times as float32, so its own commands would test other items than our runs, which are not "
            "affected; prepare the dataset again with --fresh before you run RecBole itself on it.",
        )


def _check_ties(dataset: Dataset, split: Split) -> Iterator[Finding]:
    """Report ties in time, and how many targets depend on their order."""
    if not _has_times(dataset):
        question = "training comes before test" if split.kind == "given" else "ties in time decide the targets"
        yield Finding(
            "ties",
            "note",
            "not known: the source has no times",
            f"The position in the source stands for time, so it is unknown whether {question}; state this with the "
            "results.",
        )
        return
    share = measure_tie_share(dataset) or 0.0
    if split.kind == "given":
        if share:
            yield Finding(
                "ties",
                "note",
                f"the last two interactions of {share:.1%} of users have the same time",
                "The parts are given, so ties decide only the order of a history, which sequence models read.",
            )
        return
    test, valid = estimate_changes(dataset)
    if share or test.any() or valid.any():
        yield Finding(
            "ties",
            "warning",
            f"the last two interactions of {share:.1%} of users have the same time; ties broken at random would make "
            f"{test.mean():.1%} of test targets and {valid.mean():.1%} of validation targets another item",
            "Whoever breaks these ties in another way tests other items, so compare only rows of one split hash, and "
            "run a copy made with --shuffle-ties to see how far results move.",
        )


def _check_id_order(dataset: Dataset, split: Split) -> Iterator[Finding]:
    """Report whether interactions without a known order are sorted by item id in the file.

    A group contains the interactions of one user; of one part too, if parts are given; of one time too, if times are
    known. Only the file gives the order within a group. If k different items are in random order, the expected number
    of ascending neighbouring pairs is (k - 1) / 2, with variance (k + 1) / 12. If the ids are numbers in the order of
    the items' first appearances, these appearances ascend in any case, and they are left out.
    """
    time = dataset.time if dataset.time is not None and dataset.time_known else np.zeros(dataset.n_interactions)
    part = np.zeros(dataset.n_interactions, dtype=np.int64) if dataset.part is None else dataset.part.astype(np.int64)
    order = np.lexsort((time, part, dataset.user))
    group = np.cumsum(_mark_changes(dataset.user[order], part[order], time[order])) - 1
    item = dataset.item[order]
    index = np.sort(np.unique(group * (dataset.n_items + 1) + item, return_index=True)[1])  # without repeats in a group
    token_rank = _rank_tokens(dataset)
    # Internal ids follow the first appearance, so ascending ranks mean that the tokens do too.
    if _are_numbers(dataset.item_tokens[1:]) and np.all(np.diff(token_rank) > 0):
        first_appearance = np.unique(dataset.item, return_index=True)[1]
        index = index[~np.isin(order[index], first_appearance)]
    group, rank = group[index], token_rank[item[index]]
    same_group = group[1:] == group[:-1]
    n_pairs = int(same_group.sum())
    if not n_pairs:
        return
    n_ascending = int(np.sum((rank[1:] > rank[:-1])[same_group]))
    sizes = np.bincount(group)
    z = (n_ascending - n_pairs / 2) / np.sqrt(np.sum(sizes[sizes > 1] + 1) / 12)
    if abs(z) <= FAR:
        return
    if split.kind == "given":
        effect = (
            "The order of a history follows the ids and not time, so sequence models learn an order that means "
            "nothing; say so beside their rows, or find a source with better times."
        )
    elif _has_times(dataset):
        effect = (
            "Within one time the source's order is that of ids and not of time, and a model can learn it; run a copy "
            "made with --shuffle-ties and see whether the ranking of models holds."
        )
    else:
        effect = (
            "The source's order stands for time but follows the ids more than chance would; unless ids themselves move "
            "with time, ties were broken by id, the last item need not be the latest, and a model can learn the rule."
        )
    label = "pairs of equal time" if _has_times(dataset) else "pairs"
    yield Finding(
        "items in order of id",
        "warning",
        f"{n_ascending / n_pairs:.1%} of {n_pairs:,} neighbouring {label} ascend, 50% by chance, z = {z:.1f}",
        effect,
    )


def _are_numbers(tokens: TokenArray) -> bool:
    """Return whether all tokens are whole numbers."""
    return all(token.isascii() and token.isdigit() for token in tokens)


def _rank_tokens(dataset: Dataset) -> IdArray:
    """Return the [I + 1] ranks of the item tokens; they are sorted as numbers if all are numbers, else as text."""
    tokens = dataset.item_tokens[1:]
    are_numbers = _are_numbers(tokens)
    order = sorted(range(len(tokens)), key=lambda index: int(tokens[index]) if are_numbers else str(tokens[index]))
    rank = np.zeros(len(tokens) + 1, dtype=np.int64)
    rank[np.array(order) + 1] = np.arange(1, len(tokens) + 1)
    return rank


def _check_row_order(dataset: Dataset) -> Iterator[Finding]:
    """Report users whose rows in the file are not in time order."""
    if dataset.time is None or not dataset.time_known:
        return
    order = np.argsort(dataset.user, kind="stable")
    user, time = dataset.user[order], dataset.time[order]
    n_users = len(np.unique(user[1:][(user[1:] == user[:-1]) & (time[1:] < time[:-1])]))
    if n_users:
        yield Finding(
            "rows not in time order",
            "note",
            _format_share(n_users, dataset.n_users, f"users in {dataset.name}.inter"),
            "Rows are sorted by time here; a tool that takes the file's order for time would make another split.",
        )


def _check_repeats(dataset: Dataset, split: Split) -> Iterator[Finding]:
    """Report repeated (user, item) pairs, and targets that occur in earlier interactions of their user."""
    if n_repeats := find_repeated_pairs(dataset):
        yield Finding(
            "repeated pairs",
            "note",
            _format_share(
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
            figure = _format_share(
                n_repeated, len(targets), f"{name} targets are in the same user's earlier interactions"
            )
            yield Finding("repeated targets", severity, figure, effect)


def _number_pairs(dataset: Dataset, user: IdArray, item: IdArray) -> IdArray:
    """Encode each (user, item) pair as one number."""
    return user * (dataset.n_items + 1) + item


def _check_given_parts(dataset: Dataset, split: Split) -> Iterator[Finding]:
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
                f"{_format_share(int(is_late.sum()), int(is_train.sum()), 'training interactions')} are later than a "
                f"test target of the same user; {n_users:,} users",
                "Models train on what came after the target, so results are not those of a forecast; compare them only "
                "with results on these same parts.",
            )
    is_untrained = ~np.isin(np.unique(split.test.user), split.train.repeat_users())
    if n_untrained := int(is_untrained.sum()):
        yield Finding(
            "users without training",
            "warning",
            _format_share(n_untrained, len(is_untrained), "users with test targets have no training interaction"),
            "A model with an embedding for each user knows nothing of them, and one that reads a history has their "
            "validation items at most; leave them out of the test part, or report them apart.",
        )


def _check_future_interactions(dataset: Dataset) -> Iterator[Finding]:
    """Report how many test targets are earlier than training interactions of other users."""
    if not _has_times(dataset):
        return
    ordered = _sort_interactions(dataset)
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


def _check_cold_items(split: Split) -> Iterator[Finding]:
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
        f"{_format_share(n_cold, split.n_items, 'items have no training interaction')}; "
        f"{_format_share(n_targets, len(split.test), 'test targets are such items')}",
        "A model that learns an embedding for each item can rank them only by chance, one that reads features can do "
        "better; compare the two on the other targets too.",
    )


def _check_short_users(split: Split) -> Iterator[Finding]:
    """Report users with too few interactions to be evaluated."""
    if split.n_short_users:
        yield Finding(
            "short users",
            "note",
            _format_share(split.n_short_users, split.n_users, f"users have fewer than {MIN_EVALUATED} interactions"),
            "They are trained on and not evaluated; a tool that drops or tests them averages over other users.",
        )


def _measure_popularity(split: Split) -> Iterator[Finding]:
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


def _check_texts(split: Split) -> Iterator[Finding]:
    """Report items with the same text as another item."""
    texts = np.array(split.item_text or [""], dtype=object)
    _, inverse, counts = np.unique(texts.astype(np.str_), return_inverse=True, return_counts=True)
    has_twin = (counts[inverse] > 1) & (texts != "")
    if has_twin.any():
        yield Finding("same text", "warning", _describe_twins(has_twin, split), _TWIN_EFFECT.format("text"))


_TWIN_EFFECT = (
    "A model that knows items by this {} alone cannot tell them apart, and a hit on the twin counts as a miss, which "
    "holds such models down; join the items in the source if they are one product."
)


def _describe_twins(has_twin: BoolArray, split: Split) -> str:
    """Describe how many items are like another one, and how many test targets are such items; `has_twin` is [I + 1]."""
    n_targets = int(np.sum(has_twin[split.test.item]))
    return (
        f"{_format_share(int(has_twin.sum()), split.n_items, 'items are like another one')}; "
        f"{_format_share(n_targets, len(split.test), 'test targets')}"
    )


def _check_features(
    modality: str, values: FloatArray, covered: BoolArray, manifest: Manifest, split: Split
) -> Iterator[Finding]:
    """Report equal, zero, filled, constant and uneven features of a modality.

    Args:
        modality: name of the modality.
        values: [I, D_m] features.
        covered: [I] whether the item has features of its own.
        manifest: manifest of the dataset.
        split: split of the dataset.
    """
    has_twin = np.zeros(split.n_items + 1, dtype=np.bool_)
    has_twin[1:][covered] = _find_twins(values[covered])
    if has_twin.any():
        figure = f"{modality}: {_describe_twins(has_twin, split)}"
        yield Finding("same features", "warning", figure, _TWIN_EFFECT.format("modality"))
    norm = np.linalg.norm(values.astype(np.float64), axis=1)
    if n_zero := int(np.sum((norm == 0) & covered)):
        yield Finding(
            "zero features",
            "warning",
            f"{modality}: {_format_share(n_zero, len(values), 'items')}",
            "Such items have no direction, so cosines with them are 0 and their neighbours are arbitrary; give them "
            "features or leave the modality out.",
        )
    # Manifests of earlier versions contain only the number of filled items, and no list.
    recorded = (manifest["modalities"].get(modality) or {}).get("filled_with_mean", 0)
    if n_filled := int(np.sum(~covered)) or recorded:
        yield Finding(
            "filled features",
            "warning",
            f"{modality}: {_format_share(n_filled, len(values), 'items have no features of their own')}",
            "Their rows are fill, which tells models nothing of them and makes them each other's neighbours; find what "
            "describes them, or state the coverage beside results.",
        )
    if n_constant := int(np.sum(values.max(axis=0) == values.min(axis=0))):
        yield Finding(
            "constant columns",
            "note",
            f"{modality}: {_format_share(n_constant, values.shape[1], 'columns')}",
            "They tell no item from another and only raise cosines; leave them out of the feature file.",
        )
    if norm.any() and (ratio := norm.max() / np.median(norm[norm > 0])) > NORM_RATIO:
        yield Finding(
            "uneven features",
            "warning",
            f"{modality}: the longest row is {ratio:,.1f} times the median one",
            "Models that do not normalise features are led by a few items, those that do are not; normalise the rows.",
        )


def _find_twins(values: FloatArray) -> BoolArray:
    """Find the items whose features have the same direction as those of another item.

    If there are more than EXACT_ITEMS items, only equal features are found. Zero rows are left out, because they are
    another finding.

    Args:
        values: [I, D_m] features.

    Returns:
        [I] whether the item has such a twin.
    """
    has_twin = np.zeros(len(values), dtype=np.bool_)
    nonzero = np.flatnonzero(values.any(axis=1))
    if len(nonzero) < 2:
        return has_twin
    if len(nonzero) > EXACT_ITEMS or values.shape[1] == 1:  # features of one number have no direction
        _, inverse, counts = np.unique(values[nonzero], axis=0, return_inverse=True, return_counts=True)
        has_twin[nonzero] = counts[inverse.reshape(-1)] > 1
    else:
        # The two nearest neighbours of an item include the item itself, unless two other items are as near as it is.
        index, cosine = find_nearest_neighbors(values[nonzero], 2)
        has_twin[nonzero] = np.any((cosine >= TWIN_COSINE) & (index != np.arange(len(nonzero))[:, None]), axis=1)
    return has_twin


def _check_similarity(modality: str, matrix: FloatArray, split: Split) -> Iterator[Finding]:
    """Report whether the similarity of consecutive items is what features made from content would give.

    Similarities are averaged over each user first, so that all users have the same weight. Features that were made from
    the interactions of all parts are not detected, because they make training items and test items more similar alike.

    Args:
        modality: name of the modality.
        matrix: [I + 1, D_m] features.
        split: split of the dataset.
    """
    history = split.train
    user, item = history.repeat_users(), history.items
    same_user = user[1:] == user[:-1]
    train = _compute_mean_cosine(matrix, user[1:][same_user], item[:-1][same_user], item[1:][same_user], split.n_users)
    is_trained = history.count_items()[split.test.user] > 0
    targets = Targets(split.test.user[is_trained], split.test.item[is_trained])
    last = item[history.indptr[targets.user + 1] - 1]
    test = _compute_mean_cosine(matrix, targets.user, last, targets.item, split.n_users)
    both = ~np.isnan(train) & ~np.isnan(test)
    if both.sum() < MIN_COMPARED:
        return
    random = _compute_random_cosine(matrix, item)
    figure = (
        f"{modality}: mean cosine {test[both].mean():.4f} of last training item and test item, "
        f"{train[both].mean():.4f} of consecutive training items, {random:.4f} of random ones"
    )
    train_excess, train_error = _compute_mean_and_error(train[both] - random)
    if train_excess <= FAR * train_error:
        yield Finding(
            "features unlike histories",
            "warning",
            f"{figure}; training less random {train_excess:+.4f}, standard error {train_error:.4f}",
            "What a user takes next is no more like the last item than any other is, so these features may belong to "
            "other items; read what describes the items of some histories before models that use it are trusted.",
        )
    test_excess, test_error = _compute_mean_and_error(test[both] - train[both])
    leaks = test_excess > FAR * test_error
    yield Finding(
        "features know the test part" if leaks else "similarity of test items",
        "warning" if leaks else "note",
        f"{figure}; test less training {test_excess:+.4f}, standard error {test_error:.4f}, {both.sum():,} users",
        "Features made from content show no such excess, so these may have been made from interactions of the test "
        "part; ask how they were made, or make them again from content."
        if leaks
        else "No sign that interactions of the test part went into the features, for test items would then be the more "
        "alike; features made from all parts at once are not found in this way, so know where they come from.",
    )


def _compute_mean_and_error(values: Float64Array) -> tuple[float, float]:
    """Compute the mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _compute_mean_cosine(
    matrix: FloatArray, user: IdArray, first: IdArray, second: IdArray, n_users: int
) -> Float64Array:
    """Compute the mean cosine of each user's item pairs; pairs of the same item are left out.

    Args:
        matrix: [I + 1, D_m] features.
        user: [n] user of each pair.
        first: [n] first item of each pair.
        second: [n] second item of each pair.
        n_users: number of users, U.

    Returns:
        [U + 1] mean cosine; NaN for a user without pairs.
    """
    unit = _normalize_rows(matrix)
    differ = first != second
    user, first, second = user[differ], first[differ], second[differ]
    cosine = np.einsum("pd,pd->p", unit[first], unit[second])
    count = np.bincount(user, minlength=n_users + 1)
    total = np.bincount(user, cosine, n_users + 1)
    mean: Float64Array = np.divide(total, count, out=np.full(n_users + 1, np.nan), where=count > 0)
    return mean


def _compute_random_cosine(matrix: FloatArray, item: IdArray) -> float:
    """Compute the mean cosine over all pairs of interactions with different items.

    Let x be the feature vector of an item, normalized to length 1, and c the number of its interactions. Then
    |sum of c x|^2 = sum of c^2 |x|^2 + sum of the cosines over all these pairs, where each pair counts in both orders.

    Args:
        matrix: [I + 1, D_m] features.
        item: [E] item ids of the interactions.
    """
    unit = _normalize_rows(matrix)
    count = np.bincount(item, minlength=len(unit)).astype(np.float64)
    total = count @ unit
    same = np.sum(count**2 * np.sum(unit * unit, axis=1))
    return float((total @ total - same) / (count.sum() ** 2 - np.sum(count**2)))


def _normalize_rows(values: FloatArray) -> Float64Array:
    """Normalize each row to length 1, in float64; zero rows stay zero."""
    values64 = values.astype(np.float64)
    norm = np.linalg.norm(values64, axis=1, keepdims=True)
    unit: Float64Array = np.divide(values64, norm, out=np.zeros_like(values64), where=norm > 0)
    return unit
