"""List items and their nearest neighbours in each modality, so that a reader can judge the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hellm_recbole.data.dataset import Dataset, load_dataset

N_NEAREST = 3
_MAX_TEXT = 70  # characters of a text that are shown


def find_similar_items(folder: Path, n_items: int) -> str:
    """Find the nearest neighbours, by cosine, of items that are evenly spread over all items.

    Args:
        folder: folder of a prepared dataset.
        n_items: number of items to list.

    Returns:
        Text with one block of lines for each modality.

    Raises:
        DataError: the dataset is not prepared, or its files are faulty.
    """
    from hellm_recbole.graphs.neighbors import find_nearest_neighbors  # loads torch

    dataset = load_dataset(folder, modalities=None)
    rows = np.unique(np.linspace(0, dataset.n_items - 1, max(1, min(n_items, dataset.n_items))).astype(np.int64))
    blocks = []
    for modality, features in dataset.features.items():
        index, cosine = find_nearest_neighbors(features[1:], min(N_NEAREST + 1, dataset.n_items))
        lines = [f"nearest by {modality}"]
        for row in rows:
            lines.append(f"  {_describe_item(dataset, int(row))}")
            others = [(int(i), float(c)) for i, c in zip(index[row], cosine[row], strict=True) if i != row]
            lines += [f"    {value:.3f}  {_describe_item(dataset, other)}" for other, value in others[:N_NEAREST]]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) or "no modality"


def _describe_item(dataset: Dataset, row: int) -> str:
    """Return token and text of an item; `row` is its id minus one."""
    text = dataset.item_text[row + 1] if dataset.item_text else ""
    excerpt = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
    return f"{dataset.item_tokens[row + 1]}  {excerpt}".rstrip()
