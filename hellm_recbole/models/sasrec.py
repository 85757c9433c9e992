"""SASRec: self-attentive sequential recommendation, with full softmax cross-entropy.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018. Equations in order:

- Eq. 2: input `E_i = sqrt(D) M_{s_i} + P_i`, learned positions, dropout. Positions count back from the most recent
  item, as left padding does in the released code.
- Eq. 3 to 5: causal self-attention whose query is layer-normalised.
- Eq. 6: point-wise feed-forward network of width D with ReLU.
- Section III-C: residual connections, layer normalisation, dropout; a last layer normalisation.
- Eq. 7: score of item i is the inner product of the last state with the item embedding `M_i`.

Deviations: cross-entropy over all items at every position replaces the binary loss with one sampled negative (Eq. 8),
as in the logs from which the settings are taken; it is stronger, and the usual form today. Padding is masked out of
attention (in the released code, items attend to padding). Attention has an output projection and biases, as in
`torch.nn.MultiheadAttention`. RecBole's SASRec is another variant: post-norm blocks, GELU, feed-forward width 256.

From the code of these logs (MTandHJ/CE-SCE-LLMRec, SASRec/main.py), besides padding: normalisations add torch's default
1e-5 to the variance (there 1e-8, as in the released code of SASRec). All matrices start with Xavier's normal
distribution and all biases at zero; there, the joint matrix of queries, keys and values has Xavier's uniform
distribution over its 3 D x D numbers, and weights and biases of the feed-forward network have torch's default for
convolutions, uniform in +- 1 / sqrt(D). The embedding of padding is zero (there it is drawn, and masked).
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from hellm_recbole.models.length_groups import group_by_length
from hellm_recbole.models.softmax import SoftmaxSettings, build_sampler, softmax_loss_of_table
from hellm_recbole.types import Encoded, HistoryBatch, QueryBatch, TrainData


class SASRecSettings(SoftmaxSettings):
    """Hyper-parameters of SASRec.

    Attributes:
        emb_dim: D, width of the embeddings.
        n_blocks: number of attention blocks.
        n_heads: number of attention heads; it divides D.
        dropout: dropout probability of embeddings, attention weights and feed-forward layers.
        max_history: maximum number of items read, the most recent ones.
    """

    emb_dim: int = Field(ge=1)
    n_blocks: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    max_history: int = Field(ge=1)

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
    """One causal attention block: [B, L, D] -> [B, L, D]."""

    def __init__(self, settings: SASRecSettings) -> None:
        super().__init__()
        width, self.n_heads, self.dropout = settings.emb_dim, settings.n_heads, settings.dropout
        self.query_norm = nn.LayerNorm(width)
        self.query_map = nn.Linear(width, width)
        self.key_value_map = nn.Linear(width, 2 * width)
        self.output_map = nn.Linear(width, width)
        self.forward_norm = nn.LayerNorm(width)
        self.forward_in = nn.Linear(width, width)
        self.forward_out = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """Compute [B, L, D] states from right-padded ones; items never see padding, since it comes after them."""
        b, length, width = states.shape
        heads = (b, length, self.n_heads, width // self.n_heads)
        query = self.query_map(self.query_norm(states)).view(heads).transpose(1, 2)  # [B, heads, L, D / heads]
        key, value = (part.view(heads).transpose(1, 2) for part in self.key_value_map(states).chunk(2, dim=-1))
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=True)
        states = states + self.output_map(mixed.transpose(1, 2).reshape(b, length, width))
        states = self.forward_norm(states)
        hidden = F.relu(F.dropout(self.forward_in(states), self.dropout, self.training))
        return states + F.dropout(self.forward_out(hidden), self.dropout, self.training)


class SASRec(nn.Module):
    """The sequence encoder. Item 0 is padding."""

    def __init__(self, settings: SASRecSettings, n_items: int) -> None:
        super().__init__()
        self.max_history = settings.max_history
        self.dropout = settings.dropout
        self.sampler = build_sampler(settings, n_items)
        self.item = nn.Embedding(n_items + 1, settings.emb_dim, padding_idx=0)
        self.position = nn.Embedding(settings.max_history, settings.emb_dim)  # row 0: the most recent item
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.n_blocks))
        self.last_norm = nn.LayerNorm(settings.emb_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.xavier_normal_(module.weight)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.item.weight[0] = 0.0

    @classmethod
    def build(cls, settings: SASRecSettings, data: TrainData) -> SASRec:
        """Build a model for the items of `data`."""
        return cls(settings, data.n_items)

    def compute_states(self, items: Tensor) -> Tensor:
        """Compute the [B, L, D] states after each item of right-padded [B, L] histories.

        States at padding have no meaning.
        """
        length = (items != 0).sum(dim=1, keepdim=True)  # [B, 1]
        back = (length - 1 - torch.arange(items.shape[1], device=items.device)).clamp(min=0)  # [B, L]
        embedded = self.item(items) * self.item.embedding_dim**0.5 + self.position(back)
        states = F.dropout(embedded, self.dropout, self.training)
        for block in self.blocks:
            states = block(states)
        normed: Tensor = self.last_norm(states)
        return normed

    def loss(self, batch: HistoryBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy over all items or its estimate, mean over the positions that have a target."""
        candidates = None if self.sampler is None else self.sampler.draw(batch)
        states, targets = [], []
        for items, next_items in group_by_length(batch.items, batch.targets):
            has_target = next_items != 0
            states.append(self.compute_states(items)[has_target])
            targets.append(next_items[has_target])
        term = softmax_loss_of_table(torch.cat(states), self.item.weight, torch.cat(targets), candidates)
        return {"cross_entropy": term}

    def encode(self) -> Encoded:
        """Return the item embeddings as item vectors."""
        return Encoded(items=self.item.weight)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Compute the [B, D] states after the last item; zeros, hence equal scores, for a user without history."""
        length = (batch.items != 0).sum(dim=1)
        vectors = encoded.items.new_zeros(len(batch.items), encoded.items.shape[1])
        order = torch.argsort(length, stable=True)
        for rows in order[length[order] > 0].split(256):
            last = length[rows] - 1
            states = self.compute_states(batch.items[rows, : int(last.max()) + 1])
            vectors[rows] = states[torch.arange(len(rows), device=states.device), last]
        return vectors
