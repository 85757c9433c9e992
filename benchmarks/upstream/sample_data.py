"""Small random data and batches for the comparison of values with public code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hellm_recbole.types import Histories, PairBatch, TrainData

N_USERS, N_ITEMS, DENSITY = 40, 30, 0.15
WIDTHS = {"image": 12, "text": 16}
BATCHES = (((1, 4, 6, 8, 10, 12), range(1, 7)), ((2, 2, 5, 9, 20, 31), (3, 7, 3, 8, 15, 29)), ((7, 3, 9), (2, 4, 22)))
FIRST_NEGATIVE = 10


def make_data(names: Sequence[str], *, hard: bool) -> TrainData:
    """Make random interactions and features.

    Args:
        names: names of the modalities.
        hard: whether the last user and the last item have no interactions and two items have the same features. If
            false, every user and item has an interaction.
    """
    rng = np.random.default_rng(11 if hard else 7)
    matrix = rng.random((N_USERS, N_ITEMS)) < DENSITY
    matrix[np.arange(N_USERS), rng.integers(N_ITEMS - 1, size=N_USERS)] = True
    matrix[rng.integers(N_USERS - 1, size=N_ITEMS), np.arange(N_ITEMS)] = True
    features = {name: rng.normal(size=(N_ITEMS + 1, WIDTHS[name])).astype(np.float32) for name in names}
    if hard:
        matrix[-1] = False
        matrix[:, -1] = False
    for values in features.values():
        values[0] = 0.0
        if hard:
            values[3] = values[8]
    user, item = np.nonzero(matrix)
    return TrainData(N_USERS, N_ITEMS, Histories.from_pairs(user + 1, item + 1, N_USERS), features)


def make_batches() -> list[PairBatch]:
    """Make the batches of the steps. The second has a repeated user and a repeated item; the last is shorter."""
    return [
        PairBatch(
            torch.tensor(list(user)),
            torch.tensor(list(positive)),
            torch.arange(FIRST_NEGATIVE, FIRST_NEGATIVE + len(list(user))),
        )
        for user, positive in BATCHES
    ]
