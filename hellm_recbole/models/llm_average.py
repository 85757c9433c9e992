"""Readers without a language model: items are averaged. With these, one sees what the language model does at all.

Deviation: these are not part of any paper. They take the place of `CausalReader` and `EndingReader` (`llm_reader.py`).
"""

from __future__ import annotations

from torch import Tensor

from hellm_recbole.llm.packing import PackedBatch, compute_running_mean
from hellm_recbole.models.llm_reader import Reader
from hellm_recbole.types import HistoryBatch


class CausalAverage(Reader):
    """Reader whose state after an item is the mean of its token and those before it."""

    def compute_states(self, items: Tensor, user: Tensor | None = None) -> Tensor:
        """Compute the [N, H] means after each item of right-padded [B, L] histories, history by history."""
        batch = PackedBatch.from_mask(items != 0)
        return compute_running_mean(self.items(items.flatten()[batch.positions]), batch)


class EndingAverage(CausalAverage):
    """Reader whose one state of a history is the mean of all its tokens."""

    def compute_states(self, items: Tensor, user: Tensor | None = None) -> Tensor:
        """Compute the [B, H] means of right-padded [B, L] histories of at least one item; users are not read."""
        return super().compute_states(items)[(items != 0).sum(1).cumsum(0) - 1]

    def read_targets(self, batch: HistoryBatch) -> Tensor:
        """Compute the [B, H] means from which the one target of each history is predicted."""
        return self.compute_states(batch.items)

    def read_last(self, items: Tensor, user: Tensor | None = None) -> Tensor:
        """Compute the [B, H] means of right-padded [B, L] histories of at least one item; users are not read."""
        return self.compute_states(items)
