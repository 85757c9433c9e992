"""What is odd about a prepared dataset, each finding with its number and what it does to a comparison."""

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

FAR = 3.0  # standard errors; chance alone goes further in about 3 of 1,000 cases
TWIN_COSINE = 0.9999  # rounding to float16 moves a cosine by less than 1e-6; rows this close differ in next to nothing
EXACT_ITEMS = 50_000  # all pairs of more items would take minutes; above it only equal rows are counted
NORM_RATIO = 10.0  # a row this much longer than the median one outweighs it a hundredfold in a squared error
MIN_COMPARED = 30  # users; the mean of fewer is too far from normal for FAR to mean what it says
POPULAR = 20  # the cut-off that selection uses

BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of results on this dataset should know.

    Attributes:
        name: a short name, the same for the same thing on every dataset.
        severity: `error` makes results wrong, `warning` changes the comparison, `note` does neither.
        figure: the number, or numbers.
        effect: what it does to a comparison, and what would do.
    """

    name: str
    severity: Severity
    figure: str
    effect: str


@dataclass(frozen=True)
class Examination:
    """A prepared dataset and what was found.

    Attributes:
        manifest: of the dataset.
        dataset: with those features that fit the items.
        split: of the dataset.
        findings: errors first, then warnings, then notes.
    """

    manifest: Manifest
    dataset: Dataset
    split: Split
    findings: tuple[Finding, ...]


def diagnose(folder: Path) -> list[Finding]:
    """What is odd about a prepared dataset: errors first, then warnings, then notes.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty; faulty features are a finding.
    """
    return list(examine(folder).findings)


def examine(folder: Path) -> Examination:
    """As `diagnose`, with what was read on the way.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty; faulty features are a finding.
    """
    manifest = read_manifest(folder)
    dataset, findings = _load(folder)
    split = split_dataset(dataset)
    findings += [
        *_changed(folder, manifest),
        *_too_fine(folder, manifest, dataset),
        *_ties(dataset, split),
        *_id_order(dataset, split),
        *_unsorted(dataset),
        *_repeats(dataset, split),
        *(_given(dataset, split) if split.kind == "given" else _one_clock(dataset)),
        *_cold(split),
        *_short(split),
        *_popularity(split),
        *_texts(split),
    ]
    for modality, matrix in dataset.features.items():
        findings += _features(modality, matrix[1:], dataset.covered[modality][1:], manifest, split)
        findings += _similarity(modality, matrix, split)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Examination(manifest, dataset, split, tuple(findings))


def measure_tie_share(dataset: Dataset) -> float | None:
    """Share of users, among those with two interactions or more, whose last two have the same time.

    None: the source has no times, or no user has two interactions.
    """
    if not _has_times(dataset):
        return None
    rows = _in_order(dataset)
    last = rows.last[rows.count[rows.user[rows.last]] >= 2]
    return float(np.mean(rows.time[last] == rows.time[last - 1])) if len(last) else None


def find_repeated_pairs(dataset: Dataset) -> int:
    """How many interactions repeat one of the same user with the same item."""
    return dataset.n_interactions - len(np.unique(_pairs(dataset, dataset.user, dataset.item)))


def estimate_changes(dataset: Dataset) -> tuple[Float64Array, Float64Array]:
    """For each evaluated user of a leave-one-out split: how likely another order of ties makes another target.

    Interactions of one user at one time are thought to stand in a random order, every order as likely. The last of a
    group of k is then each of the k with probability 1/k, and so is the last but one; an item that occurs c times among
    them stays the target with probability c / k.

    Returns:
        [n] probabilities that the test target is another item, [n] the same of the validation target; by user id,
        users with fewer than three interactions left out.
    """
    rows = _in_order(dataset)
    group = np.cumsum(_starts(rows.user, rows.time)) - 1
    size = np.bincount(group)[group]
    _, inverse, counts = np.unique(group * (dataset.n_items + 1) + rows.item, return_inverse=True, return_counts=True)
    other = 1 - counts[inverse] / size  # [E] that another item of the group stands in the place of this one
    test = rows.last[rows.count[rows.user[rows.last]] >= MIN_EVALUATED]
    return other[test], other[test - 1]


@dataclass(frozen=True)
class _Rows:
    """Interactions by user, then time; `last` holds the last row of each user, `count` how many each user id has."""

    user: IdArray
    item: IdArray
    time: Float64Array
    last: IdArray
    count: IdArray


def _in_order(dataset: Dataset) -> _Rows:
    time = np.arange(dataset.n_interactions, dtype=np.float64) if dataset.time is None else dataset.time
    order = np.lexsort((time, dataset.user))
    user = dataset.user[order]
    last = np.flatnonzero(np.append(user[1:] != user[:-1], True))
    return _Rows(user, dataset.item[order], time[order], last, np.bincount(user, minlength=dataset.n_users + 1))


def _starts(*keys: npt.NDArray[np.int64] | Float64Array) -> BoolArray:
    """[E] whether a row differs from the one before it in one of the keys."""
    differs = np.zeros(len(keys[0]), dtype=np.bool_)
    differs[0] = True
    for key in keys:
        differs[1:] |= key[1:] != key[:-1]
    return differs


def _has_times(dataset: Dataset) -> bool:
    return dataset.time is not None and dataset.time_known


def _of(part: int, whole: int, what: str) -> str:
    return f"{part:,} of {whole:,} {what}"


def _load(folder: Path) -> tuple[Dataset, list[Finding]]:
    """The dataset with those features that fit, and a finding for each modality that does not."""
    try:
        return load_dataset(folder, modalities=None, verify=False), []
    except DataError:
        dataset = load_dataset(folder, modalities=(), verify=False)  # what is not the features' fault is raised again
    features, covered, findings = {}, {}, []
    for modality in list_features(folder):
        try:
            alone = load_dataset(folder, modalities=(modality,), verify=False)
            features[modality], covered[modality] = alone.features[modality], alone.covered[modality]
        except DataError as error:
            effect = "No model can be run with this modality; mend its files or prepare the dataset again with --fresh."
            findings.append(Finding("features do not fit", "error", f"{modality}: {error}", effect))
    return replace(dataset, features=features, covered=covered), findings


def _changed(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    for name in find_changed_files(folder, manifest):
        yield Finding(
            "file changed",
            "error",
            f"{name} has changed since it was prepared",
            "Results would not be of the data that the manifest describes, and nobody else could prepare it; prepare "
            "the dataset again with --fresh.",
        )


def _too_fine(folder: Path, manifest: Manifest, dataset: Dataset) -> Iterator[Finding]:
    """Whether a dataset of an earlier version, whose manifest names no column of times, has times that float32 ties."""
    if "time_column" in manifest or dataset.time is None:
        return
    with np.errstate(over="ignore"):
        kept = read_table(folder / f"{dataset.name}.inter", typed=True).numbers(TIME).astype(np.float32)
    order = np.lexsort((dataset.time, dataset.user))
    moved = dataset.user[order][order != np.lexsort((kept, dataset.user))]
    if len(moved):
        yield Finding(
            "times too fine for RecBole",
            "warning",
            _of(len(np.unique(moved)), dataset.n_users, "users have another order where times are float32"),
            "RecBole keeps times as float32, so its own commands would test other items than our runs, which are not "
            "affected; prepare the dataset again with --fresh before you run RecBole itself on it.",
        )


def _ties(dataset: Dataset, split: Split) -> Iterator[Finding]:
    if not _has_times(dataset):
        unknown = "training comes before test" if split.kind == "given" else "ties in time decide the targets"
        yield Finding(
            "ties",
            "note",
            "not known: the source has no times",
            f"The position in the source stands for time, so whether {unknown} cannot be told; say so beside results.",
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


def _id_order(dataset: Dataset, split: Split) -> Iterator[Finding]:
    """Whether rows that nothing but the file's order tells apart stand in the order of their ids.

    These are the rows of one user, of one part if parts are given, and of one time if times are known. If k different
    items stand in a random order, (k - 1) / 2 neighbouring pairs ascend, with variance (k + 1) / 12. Where ids are
    numbers given in the order in which items first appear, that first row of each item is left out: it ascends anyway.
    """
    time = dataset.time if dataset.time is not None and dataset.time_known else np.zeros(dataset.n_interactions)
    part = np.zeros(dataset.n_interactions, dtype=np.int64) if dataset.part is None else dataset.part.astype(np.int64)
    order = np.lexsort((time, part, dataset.user))
    run = np.cumsum(_starts(dataset.user[order], part[order], time[order])) - 1
    item = dataset.item[order]
    first = np.sort(np.unique(run * (dataset.n_items + 1) + item, return_index=True)[1])  # of repeats in a run
    token_rank = _token_rank(dataset)
    if _numbers(dataset.item_tokens[1:]) and np.all(np.diff(token_rank) > 0):  # our ids are by first appearance
        appears = np.unique(dataset.item, return_index=True)[1]
        first = first[~np.isin(order[first], appears)]
    run, rank = run[first], token_rank[item[first]]
    paired = run[1:] == run[:-1]
    n_pairs = int(paired.sum())
    if not n_pairs:
        return
    ascending = int(np.sum((rank[1:] > rank[:-1])[paired]))
    sizes = np.bincount(run)
    z = (ascending - n_pairs / 2) / np.sqrt(np.sum(sizes[sizes > 1] + 1) / 12)
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
    pairs = "pairs of equal time" if _has_times(dataset) else "pairs"
    yield Finding(
        "items in order of id",
        "warning",
        f"{ascending / n_pairs:.1%} of {n_pairs:,} neighbouring {pairs} ascend, 50% by chance, z = {z:.1f}",
        effect,
    )


def _numbers(tokens: TokenArray) -> bool:
    return all(token.isascii() and token.isdigit() for token in tokens)


def _token_rank(dataset: Dataset) -> IdArray:
    """[I + 1] place of each item when tokens are sorted, as numbers if all of them are numbers."""
    tokens = dataset.item_tokens[1:]
    numeric = _numbers(tokens)
    order = sorted(range(len(tokens)), key=lambda place: int(tokens[place]) if numeric else str(tokens[place]))
    rank = np.zeros(len(tokens) + 1, dtype=np.int64)
    rank[np.array(order) + 1] = np.arange(1, len(tokens) + 1)
    return rank


def _unsorted(dataset: Dataset) -> Iterator[Finding]:
    if dataset.time is None or not dataset.time_known:
        return
    order = np.argsort(dataset.user, kind="stable")
    user, time = dataset.user[order], dataset.time[order]
    n_users = len(np.unique(user[1:][(user[1:] == user[:-1]) & (time[1:] < time[:-1])]))
    if n_users:
        yield Finding(
            "rows not in time order",
            "note",
            _of(n_users, dataset.n_users, f"users in {dataset.name}.inter"),
            "Rows are sorted by time here; a tool that takes the file's order for time would make another split.",
        )


def _repeats(dataset: Dataset, split: Split) -> Iterator[Finding]:
    if n_repeats := find_repeated_pairs(dataset):
        yield Finding(
            "repeated pairs",
            "note",
            _of(n_repeats, dataset.n_interactions, "interactions repeat one of the same user with the same item"),
            "Such a pair weighs more in training; a tool that drops repeats would make another split.",
        )
    train = _pairs(dataset, split.train.users(), split.train.items)
    valid = _pairs(dataset, split.valid.user, split.valid.item)
    test = _pairs(dataset, split.test.user, split.test.item)
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
            figure = _of(n_repeated, len(targets), f"{name} targets are in the same user's earlier interactions")
            yield Finding("repeated targets", severity, figure, effect)


def _pairs(dataset: Dataset, user: IdArray, item: IdArray) -> IdArray:
    """One number for each (user, item)."""
    return user * (dataset.n_items + 1) + item


def _given(dataset: Dataset, split: Split) -> Iterator[Finding]:
    """What can be wrong with parts that came with the data."""
    if dataset.time is not None and dataset.part is not None and dataset.time_known:
        is_test, is_train = dataset.part == TEST, dataset.part == TRAIN
        first_test = np.full(dataset.n_users + 1, np.inf)
        np.minimum.at(first_test, dataset.user[is_test], dataset.time[is_test])
        late = is_train & (dataset.time > first_test[dataset.user])
        if late.any():
            n_users = len(np.unique(dataset.user[late]))
            yield Finding(
                "training after test",
                "warning",
                f"{_of(int(late.sum()), int(is_train.sum()), 'training interactions')} are later than a test target "
                f"of the same user; {n_users:,} users",
                "Models train on what came after the target, so results are not those of a forecast; compare them only "
                "with results on these same parts.",
            )
    untrained = ~np.isin(np.unique(split.test.user), split.train.users())
    if n_untrained := int(untrained.sum()):
        yield Finding(
            "users without training",
            "warning",
            _of(n_untrained, len(untrained), "users with test targets have no training interaction"),
            "A model with an embedding for each user knows nothing of them, and one that reads a history has their "
            "validation items at most; leave them out of the test part, or report them apart.",
        )


def _one_clock(dataset: Dataset) -> Iterator[Finding]:
    """How far leave-one-out mixes past and future of different users."""
    if not _has_times(dataset):
        return
    rows = _in_order(dataset)
    test = rows.last[rows.count[rows.user[rows.last]] >= MIN_EVALUATED]
    is_train = np.ones(len(rows.user), dtype=np.bool_)
    is_train[test] = is_train[test - 1] = False
    before = float(np.mean(rows.time[test] < rows.time[is_train].max()))
    if before:
        yield Finding(
            "test before training ends",
            "note",
            f"{before:.1%} of test targets are earlier than the latest training interaction of all users",
            "As with every leave-one-out split, a model learns from other users' future; for a forecast, split by one "
            "point in time.",
        )


def _cold(split: Split) -> Iterator[Finding]:
    warm = np.zeros(split.n_items + 1, dtype=np.bool_)
    warm[split.train.items] = True
    n_cold = int(np.sum(~warm[1:]))
    if not n_cold:
        return
    n_targets = int(np.sum(~warm[split.test.item]))
    yield Finding(
        "cold items",
        "warning" if n_targets else "note",
        f"{_of(n_cold, split.n_items, 'items have no training interaction')}; "
        f"{_of(n_targets, len(split.test), 'test targets are such items')}",
        "A model that learns an embedding for each item can rank them only by chance, one that reads features can do "
        "better; compare the two on the other targets too.",
    )


def _short(split: Split) -> Iterator[Finding]:
    if split.n_short_users:
        yield Finding(
            "short users",
            "note",
            _of(split.n_short_users, split.n_users, f"users have fewer than {MIN_EVALUATED} interactions"),
            "They are trained on and not evaluated; a tool that drops or tests them averages over other users.",
        )


def _popularity(split: Split) -> Iterator[Finding]:
    count = np.bincount(split.train.items, minlength=split.n_items + 1)
    rank = split.n_items - np.searchsorted(np.sort(count[1:]), count[split.test.item])  # ties count against, as ever
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


def _texts(split: Split) -> Iterator[Finding]:
    texts = np.array(split.item_text or [""], dtype=object)
    _, inverse, counts = np.unique(texts.astype(np.str_), return_inverse=True, return_counts=True)
    twin = (counts[inverse] > 1) & (texts != "")
    if twin.any():
        yield Finding("same text", "warning", _twins(twin, split), _TWIN_EFFECT.format("text"))


_TWIN_EFFECT = (
    "A model that knows items by this {} alone cannot tell them apart, and a hit on the twin counts as a miss, which "
    "holds such models down; join the items in the source if they are one product."
)


def _twins(twin: BoolArray, split: Split) -> str:
    """Number of items with a twin and of test targets among them; `twin` is [I + 1]."""
    n_targets = int(np.sum(twin[split.test.item]))
    return (
        f"{_of(int(twin.sum()), split.n_items, 'items are like another one')}; "
        f"{_of(n_targets, len(split.test), 'test targets')}"
    )


def _features(
    modality: str, values: FloatArray, covered: BoolArray, manifest: Manifest, split: Split
) -> Iterator[Finding]:
    """What is odd about the rows [I, D_m] of one modality, of which `covered` [I] are the items' own."""
    twin = np.zeros(split.n_items + 1, dtype=np.bool_)
    twin[1:][covered] = _has_twin(values[covered])
    if twin.any():
        figure = f"{modality}: {_twins(twin, split)}"
        yield Finding("same features", "warning", figure, _TWIN_EFFECT.format("modality"))
    norm = np.linalg.norm(values.astype(np.float64), axis=1)
    if n_zero := int(np.sum((norm == 0) & covered)):
        yield Finding(
            "zero features",
            "warning",
            f"{modality}: {_of(n_zero, len(values), 'items')}",
            "Such items have no direction, so cosines with them are 0 and their neighbours are arbitrary; give them "
            "features or leave the modality out.",
        )
    counted = (manifest["modalities"].get(modality) or {}).get("filled_with_mean", 0)  # earlier manifests only count
    if n_filled := int(np.sum(~covered)) or counted:
        yield Finding(
            "filled features",
            "warning",
            f"{modality}: {_of(n_filled, len(values), 'items have no features of their own')}",
            "Their rows are fill, which tells models nothing of them and makes them each other's neighbours; find what "
            "describes them, or state the coverage beside results.",
        )
    if n_constant := int(np.sum(values.max(axis=0) == values.min(axis=0))):
        yield Finding(
            "constant columns",
            "note",
            f"{modality}: {_of(n_constant, values.shape[1], 'columns')}",
            "They tell no item from another and only raise cosines; leave them out of the feature file.",
        )
    if norm.any() and (ratio := norm.max() / np.median(norm[norm > 0])) > NORM_RATIO:
        yield Finding(
            "uneven features",
            "warning",
            f"{modality}: the longest row is {ratio:,.1f} times the median one",
            "Models that do not normalise features are led by a few items, those that do are not; normalise the rows.",
        )


def _has_twin(values: FloatArray) -> BoolArray:
    """[I] whether the features of an item have the direction of another one's; of many items, whether they are equal.

    Zero rows are no twins; they are counted apart.
    """
    twin = np.zeros(len(values), dtype=np.bool_)
    own = np.flatnonzero(values.any(axis=1))
    if len(own) < 2:
        return twin
    if len(own) > EXACT_ITEMS or values.shape[1] == 1:  # one number has no direction
        _, inverse, counts = np.unique(values[own], axis=0, return_inverse=True, return_counts=True)
        twin[own] = counts[inverse.reshape(-1)] > 1
    else:
        # Two neighbours: the item itself and another; or two others, if more than two are alike.
        index, cosine = find_nearest_neighbors(values[own], 2)
        twin[own] = np.any((cosine >= TWIN_COSINE) & (index != np.arange(len(own))[:, None]), axis=1)
    return twin


def _similarity(modality: str, matrix: FloatArray, split: Split) -> Iterator[Finding]:
    """Whether items that follow each other are as alike as content would make them.

    Similarities are averaged within each user first, so that users who differ in taste or length weigh alike. Features
    that were made from the interactions of all parts raise the similarity of training and of test items, and are not
    found in this way.
    """
    history = split.train
    user, item = history.users(), history.items
    within = user[1:] == user[:-1]
    train = _mean_cosine(matrix, user[1:][within], item[:-1][within], item[1:][within], split.n_users)
    trained = history.lengths()[split.test.user] > 0
    targets = Targets(split.test.user[trained], split.test.item[trained])
    last = item[history.indptr[targets.user + 1] - 1]
    test = _mean_cosine(matrix, targets.user, last, targets.item, split.n_users)
    both = ~np.isnan(train) & ~np.isnan(test)
    if both.sum() < MIN_COMPARED:
        return
    random = _random_cosine(matrix, item)
    figure = (
        f"{modality}: mean cosine {test[both].mean():.4f} of last training item and test item, "
        f"{train[both].mean():.4f} of consecutive training items, {random:.4f} of random ones"
    )
    above, above_error = _mean_and_error(train[both] - random)
    if above <= FAR * above_error:
        yield Finding(
            "features unlike histories",
            "warning",
            f"{figure}; training less random {above:+.4f}, standard error {above_error:.4f}",
            "What a user takes next is no more like the last item than any other is, so these features may belong to "
            "other items; read what describes the items of some histories before models that use it are trusted.",
        )
    excess, error = _mean_and_error(test[both] - train[both])
    knows = excess > FAR * error
    yield Finding(
        "features know the test part" if knows else "similarity of test items",
        "warning" if knows else "note",
        f"{figure}; test less training {excess:+.4f}, standard error {error:.4f}, {both.sum():,} users",
        "Features made from content show no such excess, so these may have been made from interactions of the test "
        "part; ask how they were made, or make them anew from content."
        if knows
        else "No sign that interactions of the test part went into the features, for test items would then be the more "
        "alike; features made from all parts at once are not found in this way, so know where they come from.",
    )


def _mean_and_error(values: Float64Array) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _mean_cosine(matrix: FloatArray, user: IdArray, one: IdArray, other: IdArray, n_users: int) -> Float64Array:
    """[U + 1] mean cosine of each user's pairs of different items; NaN where a user has none."""
    unit = _unit(matrix)
    differ = one != other
    user, one, other = user[differ], one[differ], other[differ]
    cosine = np.einsum("pd,pd->p", unit[one], unit[other])
    count = np.bincount(user, minlength=n_users + 1)
    total = np.bincount(user, cosine, n_users + 1)
    mean: Float64Array = np.divide(total, count, out=np.full(n_users + 1, np.nan), where=count > 0)
    return mean


def _random_cosine(matrix: FloatArray, item: IdArray) -> float:
    """Mean cosine over all pairs of interactions with different items, from the length of the sum of their rows.

    Of items that occur c times each: |sum of c x|^2 = sum of c^2 |x|^2 + sum over the pairs.
    """
    unit = _unit(matrix)
    count = np.bincount(item, minlength=len(unit)).astype(np.float64)
    total = count @ unit
    same = np.sum(count**2 * np.sum(unit * unit, axis=1))
    return float((total @ total - same) / (count.sum() ** 2 - np.sum(count**2)))


def _unit(values: FloatArray) -> Float64Array:
    wide = values.astype(np.float64)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: Float64Array = np.divide(wide, norm, out=np.zeros_like(wide), where=norm > 0)
    return unit
