"""Check whether the similarity of consecutive items is what features made from content would give."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.diagnostics.findings import FAR, Finding
from hellm_recbole.data.split import Split
from hellm_recbole.types import FloatArray, IdArray, Targets

MIN_COMPARED = 30  # users; the mean over fewer users is not normal enough for the test with FAR

Float64Array = npt.NDArray[np.float64]


def check_similarity(modality: str, matrix: FloatArray, split: Split) -> Iterator[Finding]:
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
    unit = _normalize_rows(matrix)
    train = _compute_mean_cosine(unit, user[1:][same_user], item[:-1][same_user], item[1:][same_user], split.n_users)
    is_trained = history.count_items()[split.test.user] > 0
    targets = Targets(split.test.user[is_trained], split.test.item[is_trained])
    last = item[history.indptr[targets.user + 1] - 1]
    test = _compute_mean_cosine(unit, targets.user, last, targets.item, split.n_users)
    both = ~np.isnan(train) & ~np.isnan(test)
    if both.sum() < MIN_COMPARED:
        return
    random = _compute_random_cosine(unit, item)
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
    unit: Float64Array, user: IdArray, first: IdArray, second: IdArray, n_users: int
) -> Float64Array:
    """Compute the mean cosine of each user's item pairs; pairs of the same item are left out.

    Args:
        unit: [I + 1, D_m] features, each row of length 1 or 0.
        user: [n] user of each pair.
        first: [n] first item of each pair.
        second: [n] second item of each pair.
        n_users: number of users, U.

    Returns:
        [U + 1] mean cosine; NaN for a user without pairs.
    """
    differ = first != second
    user, first, second = user[differ], first[differ], second[differ]
    cosine = np.einsum("pd,pd->p", unit[first], unit[second])
    count = np.bincount(user, minlength=n_users + 1)
    total = np.bincount(user, cosine, n_users + 1)
    mean: Float64Array = np.divide(total, count, out=np.full(n_users + 1, np.nan), where=count > 0)
    return mean


def _compute_random_cosine(unit: Float64Array, item: IdArray) -> float:
    """Compute the mean cosine over all pairs of interactions with different items.

    Let x be the feature vector of an item, normalized to length 1, and c the number of its interactions. Then
    |sum of c x|^2 = sum of c^2 |x|^2 + sum of the cosines over all these pairs, where each pair counts in both orders.

    Args:
        unit: [I + 1, D_m] features, each row of length 1 or 0.
        item: [E] item ids of the interactions.
    """
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
