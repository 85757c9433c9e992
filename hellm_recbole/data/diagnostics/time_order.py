"""Check the order of interactions: times that are equal, rounded or unknown, and orders that follow item ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.diagnostics.findings import FAR, Finding, format_share
from hellm_recbole.data.manifest import Manifest
from hellm_recbole.data.split import MIN_EVALUATED, Split
from hellm_recbole.data.times import TIME
from hellm_recbole.data.tsv import read_table
from hellm_recbole.types import IdArray, TokenArray

Float64Array = npt.NDArray[np.float64]


def measure_tie_share(dataset: Dataset) -> float | None:
    """Measure the share of users whose last two interactions have the same time.

    Returns:
        Share among the users with two or more interactions; None if the source has no times, or if there is no such
        user.
    """
    if not has_times(dataset):
        return None
    ordered = sort_interactions(dataset)
    last = ordered.last[ordered.count[ordered.user[ordered.last]] >= 2]
    return float(np.mean(ordered.time[last] == ordered.time[last - 1])) if len(last) else None


def estimate_changes(dataset: Dataset) -> tuple[Float64Array, Float64Array]:
    """Estimate how likely a random order of ties changes the targets of a leave-one-out split, for each evaluated user.

    A user's interactions with equal times form a group, and all orders of a group are equally likely. In a group of k
    interactions, each one is the last with probability 1 / k, and the last but one with the same probability. So an
    item that occurs c times in the group stays the target with probability c / k.

    Returns:
        [n] probability that the test target changes, [n] probability that the validation target changes; in the order
        of user ids, without users with fewer than three interactions.
    """
    ordered = sort_interactions(dataset)
    group = np.cumsum(mark_changes(ordered.user, ordered.time)) - 1
    size = np.bincount(group)[group]
    _, inverse, counts = np.unique(
        group * (dataset.n_items + 1) + ordered.item, return_inverse=True, return_counts=True
    )
    change = 1 - counts[inverse] / size  # [E] probability that this position gets another item of the group
    test = ordered.last[ordered.count[ordered.user[ordered.last]] >= MIN_EVALUATED]
    return change[test], change[test - 1]


@dataclass(frozen=True)
class SortedInteractions:
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


def sort_interactions(dataset: Dataset) -> SortedInteractions:
    """Sort interactions by user, then time."""
    time = np.arange(dataset.n_interactions, dtype=np.float64) if dataset.time is None else dataset.time
    order = np.lexsort((time, dataset.user))
    user = dataset.user[order]
    last = np.flatnonzero(np.append(user[1:] != user[:-1], True))
    return SortedInteractions(
        user, dataset.item[order], time[order], last, np.bincount(user, minlength=dataset.n_users + 1)
    )


def mark_changes(*keys: npt.NDArray[np.int64] | Float64Array) -> npt.NDArray[np.bool_]:
    """Return [E] whether an entry differs from the one before it in one of the keys; the first entry is True."""
    differs = np.zeros(len(keys[0]), dtype=np.bool_)
    differs[0] = True
    for key in keys:
        differs[1:] |= key[1:] != key[:-1]
    return differs


def has_times(dataset: Dataset) -> bool:
    """Return whether the times of the interactions are known."""
    return dataset.time is not None and dataset.time_known


def check_time_precision(folder: Path, manifest: Manifest, dataset: Dataset) -> Iterator[Finding]:
    """Report times that become equal in float32.

    This concerns only datasets of an earlier version; their manifest does not name the column of the times.
    """
    if manifest.time_column is not None or dataset.time is None:
        return
    with np.errstate(over="ignore"):
        rounded = read_table(folder / f"{dataset.name}.inter", typed=True).numbers(TIME).astype(np.float32)
    order = np.lexsort((dataset.time, dataset.user))
    affected = dataset.user[order][order != np.lexsort((rounded, dataset.user))]
    if len(affected):
        yield Finding(
            "times too fine for RecBole",
            "warning",
            format_share(len(np.unique(affected)), dataset.n_users, "users have another order where times are float32"),
            "RecBole keeps times as float32, so its own commands would test other items than our runs, which are not "
            "affected; prepare the dataset again with --fresh before you run RecBole itself on it.",
        )


def check_ties(dataset: Dataset, split: Split) -> Iterator[Finding]:
    """Report ties in time, and how many targets depend on their order."""
    if not has_times(dataset):
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


def check_id_order(dataset: Dataset, split: Split) -> Iterator[Finding]:
    """Report whether interactions without a known order are sorted by item id in the file.

    A group contains the interactions of one user; of one part too, if parts are given; of one time too, if times are
    known. Only the file gives the order within a group. If k different items are in random order, the expected number
    of ascending neighbouring pairs is (k - 1) / 2, with variance (k + 1) / 12. If the ids are numbers in the order of
    the items' first appearances, these appearances ascend in any case, and they are left out.
    """
    time = dataset.time if dataset.time is not None and dataset.time_known else np.zeros(dataset.n_interactions)
    part = np.zeros(dataset.n_interactions, dtype=np.int64) if dataset.part is None else dataset.part.astype(np.int64)
    order = np.lexsort((time, part, dataset.user))
    group = np.cumsum(mark_changes(dataset.user[order], part[order], time[order])) - 1
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
    elif has_times(dataset):
        effect = (
            "Within one time the source's order is that of ids and not of time, and a model can learn it; run a copy "
            "made with --shuffle-ties and see whether the ranking of models holds."
        )
    else:
        effect = (
            "The source's order stands for time but follows the ids more than chance would; unless ids themselves move "
            "with time, ties were broken by id, the last item need not be the latest, and a model can learn the rule."
        )
    label = "pairs of equal time" if has_times(dataset) else "pairs"
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


def check_row_order(dataset: Dataset) -> Iterator[Finding]:
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
            format_share(n_users, dataset.n_users, f"users in {dataset.name}.inter"),
            "Rows are sorted by time here; a tool that takes the file's order for time would make another split.",
        )
