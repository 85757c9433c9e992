"""Items and their nearest neighbours in each modality, to be read: whether features say what the items are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hellm_recbole.data.atomic import Dataset, load_dataset
from hellm_recbole.graphs.neighbors import find_nearest_neighbors

N_NEAREST = 3
_SHOWN = 70  # characters of a text


def find_similar_items(folder: Path, n_items: int) -> str:
    """`n_items` items, evenly spread over the catalogue, with the nearest others by cosine; one block a modality.

    Args:
        folder: of a prepared dataset.
        n_items: how many; at most all.

    Raises:
        DataError: the dataset is not prepared, or faulty.
    """
    dataset = load_dataset(folder, modalities=None)
    chosen = np.unique(np.linspace(0, dataset.n_items - 1, max(1, min(n_items, dataset.n_items))).astype(np.int64))
    blocks = []
    for modality, features in dataset.features.items():
        index, cosine = find_nearest_neighbors(features[1:], min(N_NEAREST + 1, dataset.n_items))
        lines = [f"nearest by {modality}"]
        for row in chosen:
            lines.append(f"  {_named(dataset, int(row))}")
            others = [(int(i), float(c)) for i, c in zip(index[row], cosine[row], strict=True) if i != row]
            lines += [f"    {value:.3f}  {_named(dataset, other)}" for other, value in others[:N_NEAREST]]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) or "no modality"


def _named(dataset: Dataset, row: int) -> str:
    """Token and text of an item, by row (id less one)."""
    text = dataset.item_text[row + 1] if dataset.item_text else ""
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"{dataset.item_tokens[row + 1]}  {shown}".rstrip()
