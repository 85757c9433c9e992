"""Cross-entropy of the softmax over all items, full or estimated, for every model whose head is such a softmax.

With `s_i` the score of item i, the full loss of a target t is `log(sum_i exp(s_i)) - s_t`.

The estimate (`loss: sampled`) is a sampled softmax with the logQ correction of Yi et al. ("Sampling-Bias-Corrected
Neural Modeling for Large Corpus Item Recommendations", RecSys 2019): an item that enters the sum with probability Q_i
has the logit `s_i - log Q_i`. All positions of a step share one sample:

- All items of the batch, histories and targets, enter with Q = 1. They are counted exactly, and each once.
- Of the R others, N are drawn uniformly without replacement, so that Q = N / R.

So the expected value of `sum exp(s_i - log Q_i)`, given the batch, is the sum over all items. The target of every
position is among the items of the batch, and none of these can be drawn: there are no accidental hits to remove. The
logarithm of an unbiased estimate is too low on average (Jensen's inequality); this bias of the loss falls with N, and
with N >= R the loss is the full one.

Deviations from Yi et al.: their negatives are the other targets of the batch alone, with Q estimated from a stream;
here Q is known, and items that never occur in a batch together enter, too.

The random numbers are those of torch's generator, which each epoch seeds with (seed, epoch): a run that was stopped and
resumed draws the same items as one that was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from hellm_recbole.config.settings import Settings
from hellm_recbole.models.large_softmax import large_softmax_loss
from hellm_recbole.models.losses import softmax_cross_entropy_loss
from hellm_recbole.types import HistoryBatch

SAMPLED = "sampled"
MOST_STORED_ITEMS = 50_000  # with more, logits are computed twice instead of stored for a block of positions


class SoftmaxSettings(Settings):
    """Settings of the loss of models whose head is a softmax over all items.

    Attributes:
        loss: full (softmax over all items) or sampled (an estimate of it, from the items of the batch and drawn ones).
        n_negatives: N, number of items that are drawn in a step besides those of the batch, if the loss is sampled.
    """

    loss: Literal["full", "sampled"]
    n_negatives: int = Field(ge=1)


@dataclass(frozen=True)
class Candidates:
    """The items over which a step takes the softmax.

    Attributes:
        items: [C + 1] item ids; entry 0 is padding.
        index: [I + 1] index of each item in `items`, for the items of the batch.
        log_weight: [C] logarithm of the number of items for which each candidate counts, `-log Q`.
    """

    items: Tensor
    index: Tensor
    log_weight: Tensor


@dataclass(frozen=True)
class CandidateSampler:
    """Draws the candidates of each step.

    Attributes:
        n_items: I.
        n_negatives: N, number of items that are drawn besides those of the batch.
    """

    n_items: int
    n_negatives: int

    def draw(self, batch: HistoryBatch) -> Candidates:
        """Draw the candidates of a step, see `draw_candidates`."""
        return draw_candidates(batch, self.n_items, self.n_negatives)


def build_sampler(settings: SoftmaxSettings, n_items: int) -> CandidateSampler | None:
    """Build what draws the candidates; None if the loss is over all items.

    Args:
        settings: settings of the loss.
        n_items: I.
    """
    return CandidateSampler(n_items, settings.n_negatives) if settings.loss == SAMPLED else None


def draw_candidates(batch: HistoryBatch, n_items: int, n_negatives: int) -> Candidates:
    """Draw the items of a step: all items of the batch, and uniform others, without replacement.

    Args:
        batch: histories and targets.
        n_items: I.
        n_negatives: N, number of other items to draw; all of them if there are fewer.
    """
    device = batch.items.device
    occurs = torch.zeros(n_items + 1, dtype=torch.bool, device=device)
    occurs[batch.items] = True
    occurs[batch.targets] = True
    occurs[0] = True  # the padding, which comes first
    present, others = occurs.nonzero().squeeze(1), (~occurs).nonzero().squeeze(1)
    drawn = others[torch.randperm(len(others), device=device)[:n_negatives]]
    items = torch.cat([present, drawn])
    index = torch.zeros(n_items + 1, dtype=torch.int64, device=device)
    index[items] = torch.arange(len(items), device=device)
    log_weight = torch.zeros(len(items) - 1, device=device)
    if len(drawn):
        log_weight[len(present) - 1 :] = torch.log(torch.tensor(len(others) / len(drawn)))
    return Candidates(items, index, log_weight)


def softmax_loss(query: Tensor, items: Tensor, target: Tensor, offset: Tensor | None = None) -> Tensor:
    """Compute the mean cross-entropy of `softmax(query @ items.T + offset)`; no [N, C] matrix is ever in memory.

    Args:
        query: [N, D] query vectors.
        items: [C, D] vectors of the candidates.
        target: [N] indices of the targets in 0..C-1.
        offset: [C] number that is added to each logit of a candidate: its bias, its log weight, or both.
    """
    if offset is not None:  # one more column adds it to each logit
        query = torch.cat([query, query.new_ones(len(query), 1)], dim=1)
        items = torch.cat([items, offset.unsqueeze(1)], dim=1)
    if len(items) > MOST_STORED_ITEMS:
        return large_softmax_loss(query, items, target)
    return softmax_cross_entropy_loss(query, items, target)


def softmax_loss_of_table(query: Tensor, table: Tensor, target: Tensor, candidates: Candidates | None) -> Tensor:
    """Compute the loss of a model whose item vectors are the rows of one table.

    Args:
        query: [N, D] query vectors.
        table: [I + 1, D] item vectors; row 0 is padding.
        target: [N] item ids of the targets.
        candidates: the items of the step; None for all.
    """
    if candidates is None:
        return softmax_loss(query, table[1:], target - 1)
    rows = F.embedding(candidates.items[1:], table)
    return softmax_loss(query, rows, candidates.index[target] - 1, candidates.log_weight)
