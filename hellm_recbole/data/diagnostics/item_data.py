"""Check the features and texts of items: items that are alike, filled rows, and features without content."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.diagnostics.findings import Finding, format_share
from hellm_recbole.data.manifest import Manifest
from hellm_recbole.data.split import Split
from hellm_recbole.types import FloatArray

TWIN_COSINE = 0.9999  # smallest cosine of items that count as equal; rounding to float16 changes it by less than 1e-6
EXACT_ITEMS = 50_000  # largest number of items for comparing all pairs; above it, only equal rows count
NORM_RATIO = 10.0  # longest row / median row; at 10, a row has 100 times the weight in a squared error

BoolArray = npt.NDArray[np.bool_]

_TWIN_EFFECT = (
    "A model that knows items by this {} alone cannot tell them apart, and a hit on the twin counts as a miss, which "
    "holds such models down; join the items in the source if they are one product."
)


def check_texts(split: Split) -> Iterator[Finding]:
    """Report items with the same text as another item."""
    texts = np.array(split.item_text or [""], dtype=object)
    _, inverse, counts = np.unique(texts.astype(np.str_), return_inverse=True, return_counts=True)
    has_twin = (counts[inverse] > 1) & (texts != "")
    if has_twin.any():
        yield Finding("same text", "warning", _describe_twins(has_twin, split), _TWIN_EFFECT.format("text"))


def _describe_twins(has_twin: BoolArray, split: Split) -> str:
    """Describe how many items are like another one, and how many test targets are such items; `has_twin` is [I + 1]."""
    n_targets = int(np.sum(has_twin[split.test.item]))
    return (
        f"{format_share(int(has_twin.sum()), split.n_items, 'items are like another one')}; "
        f"{format_share(n_targets, len(split.test), 'test targets')}"
    )


def check_features(
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
            f"{modality}: {format_share(n_zero, len(values), 'items')}",
            "Such items have no direction, so cosines with them are 0 and their neighbours are arbitrary; give them "
            "features or leave the modality out.",
        )
    # Manifests of earlier versions contain only the number of filled items, and no list.
    about = manifest.modalities.get(modality)
    recorded = None if about is None else about.filled_with_mean
    if n_filled := int(np.sum(~covered)) or recorded or 0:
        yield Finding(
            "filled features",
            "warning",
            f"{modality}: {format_share(n_filled, len(values), 'items have no features of their own')}",
            "Their rows are fill, which tells models nothing of them and makes them each other's neighbours; find what "
            "describes them, or state the coverage beside results.",
        )
    if n_constant := int(np.sum(values.max(axis=0) == values.min(axis=0))):
        yield Finding(
            "constant columns",
            "note",
            f"{modality}: {format_share(n_constant, values.shape[1], 'columns')}",
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
    from hellm_recbole.graphs.neighbors import find_nearest_neighbors  # loads torch

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
