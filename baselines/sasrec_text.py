"""SASRec-text and SASRec-text-llm: a self-attentive sequence model whose items are read from their features.

The architecture is SASRec's (Kang and McAuley, ICDM 2018), with the item vectors and the head of MPT (Xu et al., arXiv
2601.08275): vectors of frozen encoders of the item texts, mapped by a network, in the input and in the head, and a
cosine head. SASRec-text reads the vectors of a sentence encoder, SASRec-text-llm also those of a language model.

- Item vectors `v_i` of unit length: `hellm_recbole/models/feature_items.py`.
- Input: `x_t = dropout(sqrt(D) v_{s_t} + p_t)`, learned positions p that count back from the most recent item.
- Blocks, pre-norm: `x = x + dropout(Attention(LN(x)))`, causal, then `x = x + dropout(W_2 GELU(W_1 LN(x)))`.
- Head: `score_i = cos(LN(x_t), v_i) / temperature`.
- Loss: cross-entropy of the softmax over all items at every position (`loss: full`), or an estimate of it
  (`loss: sampled`), for which only the item vectors of the step are computed: `hellm_recbole/models/softmax.py`.

Deviations from MPT: an item embedding of its own beside the features, which starts at zero; whitened features; two
blocks of width 128 instead of four of width 256; no pre-training on synthetic sequences; the estimate of the loss; a
moving average of the weights.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from hellm_recbole.models.feature_items import FeatureItems, FeatureItemSettings, build_feature_items
from hellm_recbole.models.length_groups import find_length_groups, group_by_length
from hellm_recbole.models.softmax import SoftmaxSettings, build_sampler, softmax_loss
from hellm_recbole.types import Encoded, HistoryBatch, QueryBatch, TrainData


class SASRecTextSettings(FeatureItemSettings, SoftmaxSettings):
    """Hyper-parameters of SASRec-text.

    Attributes:
        emb_dim: D, width of the item vectors and of the states.
        n_blocks: number of attention blocks.
        n_heads: number of attention heads; it divides D.
        inner_dim: hidden width of the feed-forward networks.
        dropout: dropout probability of the input and of the output of each attention and feed-forward network.
        max_history: maximum number of items read, the most recent ones.
        temperature: number by which the cosines are divided.
    """

    emb_dim: int = Field(ge=1)
    n_blocks: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    inner_dim: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    max_history: int = Field(ge=1)
    temperature: float = Field(ge=0.01)

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        """Refuse a width that cannot be divided among the heads.

        Raises:
            ValueError: `emb_dim` is not a multiple of `n_heads`.
        """
        if self.emb_dim % self.n_heads:
            raise ValueError(f"emb_dim = {self.emb_dim} must be a multiple of n_heads = {self.n_heads}")
        return self


class Block(nn.Module):
    """One pre-norm block of causal attention and a feed-forward network: [B, L, D] -> [B, L, D]."""

    def __init__(self, settings: SASRecTextSettings) -> None:
        super().__init__()
        width, self.n_heads, self.dropout = settings.emb_dim, settings.n_heads, settings.dropout
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.forward_norm = nn.LayerNorm(width)
        self.forward_in = nn.Linear(width, settings.inner_dim)
        self.forward_out = nn.Linear(settings.inner_dim, width)

    def forward(self, states: Tensor) -> Tensor:
        """Compute [B, L, D] states from right-padded ones; items never see padding, since it comes after them."""
        b, length, width = states.shape
        parts = self.query_key_value(self.attention_norm(states)).view(b, length, 3, self.n_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # [B, heads, L, D / heads] each
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed = self.attention_out(mixed.transpose(1, 2).reshape(b, length, width))
        states = states + F.dropout(mixed, self.dropout, self.training)
        hidden = F.gelu(self.forward_in(self.forward_norm(states)))
        return states + F.dropout(self.forward_out(hidden), self.dropout, self.training)


class SequenceEncoder(nn.Module):
    """Positions, blocks and the last normalisation: item vectors of histories -> states of unit length."""

    def __init__(self, settings: SASRecTextSettings) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.position = nn.Embedding(settings.max_history, settings.emb_dim)  # row 0: the most recent item
        nn.init.normal_(self.position.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.n_blocks))
        self.last_norm = nn.LayerNorm(settings.emb_dim)

    def list_undecayed(self) -> tuple[str, ...]:
        """List the parameters without weight decay, besides those of one dimension."""
        return ("position.weight",)

    def forward(self, vectors: Tensor, length: Tensor) -> Tensor:
        """Compute the states after each item of right-padded histories; those at padding have no meaning.

        Args:
            vectors: [B, L, D] item vectors of unit length.
            length: [B] number of items of each history.

        Returns:
            [B, L, D] states of unit length.
        """
        steps = torch.arange(vectors.shape[1], device=vectors.device)
        back = (length.unsqueeze(1) - 1 - steps).clamp(min=0)  # [B, L]
        states = F.dropout(vectors * vectors.shape[2] ** 0.5 + self.position(back), self.dropout, self.training)
        for block in self.blocks:
            states = block(states)
        return F.normalize(self.last_norm(states), dim=2)


class SASRecText(nn.Module):
    """The sequence model of item vectors that are computed from features. Item 0 is padding.

    Args:
        settings: hyper-parameters.
        items: vectors of the items.
    """

    def __init__(self, settings: SASRecTextSettings, items: FeatureItems) -> None:
        super().__init__()
        self.max_history, self.temperature = settings.max_history, settings.temperature
        self.n_items = len(items.features) - 1
        self.sampler = build_sampler(settings, self.n_items)
        self.items = items
        self.encoder = SequenceEncoder(settings)

    @classmethod
    def build(cls, settings: SASRecTextSettings, data: TrainData) -> SASRecText:
        """Build a model from the chosen modalities of `data`.

        Raises:
            ModelError: there is no modality, a chosen modality is missing, or its mask is.
        """
        return cls(settings, build_feature_items("SASRec-text", settings, data, settings.emb_dim))

    def loss(self, batch: HistoryBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy over all items or its estimate, mean over the positions that have a target."""
        candidates = None if self.sampler is None else self.sampler.draw(batch)
        vectors = self.items(None if candidates is None else candidates.items)  # [C + 1, D]
        states, targets = [], []
        for items, next_items in group_by_length(batch.items, batch.targets):
            has_target = next_items != 0
            read = F.embedding(items if candidates is None else candidates.index[items], vectors)
            states.append(self.encoder(read, (items != 0).sum(dim=1))[has_target])
            targets.append(next_items[has_target])
        query, target = torch.cat(states) / self.temperature, torch.cat(targets)
        if candidates is None:
            return {"cross_entropy": softmax_loss(query, vectors[1:], target - 1)}
        term = softmax_loss(query, vectors[1:], candidates.index[target] - 1, candidates.log_weight)
        return {"cross_entropy": term}

    def encode(self) -> Encoded:
        """Compute the vectors of all items."""
        return Encoded(items=self.items())

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Compute the [B, D] states after the last item, divided by the temperature.

        They are zeros, hence equal scores, for a user without history.
        """
        length = (batch.items != 0).sum(dim=1)
        vectors = encoded.items.new_zeros(len(batch.items), encoded.items.shape[1])
        for rows in find_length_groups(length):
            last = length[rows] - 1
            read = encoded.select_items(batch.items[rows, : int(last.max()) + 1])
            states = self.encoder(read, length[rows])
            vectors[rows] = states[torch.arange(len(rows), device=states.device), last] / self.temperature
        return vectors
