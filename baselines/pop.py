"""Pop: every user gets the items with the most training interactions.

It has no paper; it is the usual lower bound of a comparison.

- Score of item i, the same for all users: the number of training interactions with i.

Deviations: RecBole's Pop divides the counts by the largest one, which changes no rank, and counts an item once in each
batch, however often it occurs there. Here each interaction counts, as in this project's runs of RecBole's Pop. An item
that a user has several times counts several times, as in RecBole.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.types import QueryBatch, TrainData


class PopSettings(Settings):
    """Pop has no settings of its own."""


class Pop(nn.Module):
    """Pop: the number of training interactions of each item.

    Args:
        counts: [I + 1] number of interactions of each item; entry 0 (padding) is 0.
    """

    max_history = 0
    counts: Tensor

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        self.register_buffer("counts", counts, persistent=False)

    @classmethod
    def build(cls, settings: PopSettings, data: TrainData) -> Pop:
        """Count the training interactions of each item."""
        counts = np.bincount(data.history.items, minlength=data.n_items + 1)
        return cls(torch.from_numpy(counts.astype(np.float32)))

    def score(self, batch: QueryBatch) -> Tensor:
        """Return the counts for each user of a batch, [B, I] float32."""
        return self.counts[1:].expand(len(batch.user), -1)
