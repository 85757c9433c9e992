"""SASRec: self-attentive sequential recommendation, with full softmax cross-entropy.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018. Equations in order:

- Eq. 2: input `E_i = sqrt(D) M_{s_i} + P_i`, learned positions, dropout. Positions count back from the most recent
  item, as left padding does in the released code.
- Eq. 3 to 5: causal self-attention whose query is layer-normalised.
- Eq. 6: point-wise feed-forward network of width D with ReLU.
- Section III-C: residual connections, layer normalisation, dropout; a last layer normalisation.
- Eq. 7: score of item i is the inner product of the last state with the item embedding `M_i`.

Deviations: cross-entropy over all items at every position replaces the binary loss with one sampled negative (Eq. 8),
as in the logs the settings come from; it is the stronger and today the usual form. Padding is masked out of attention
(the released code lets padded positions be attended to). Attention has an output projection and biases, as in
`torch.nn.MultiheadAttention`. RecBole's SASRec is another variant: post-norm blocks, GELU, feed-forward width 256.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.config.layers import setting
from hellm_recbole.models.losses import softmax_cross_entropy_loss
from hellm_recbole.types import Encoded, HistoryBatch, QueryBatch, TrainData


@dataclass(frozen=True)
class SASRecSettings:
    """Hyper-parameters of SASRec.

    Attributes:
        emb_dim: D.
        n_blocks: attention blocks.
        n_heads: attention heads; divides D.
        dropout: probability, of embeddings, attention weights and feed-forward layers.
        max_history: most recent items read.
    """

    emb_dim: int = setting(ge=1)
    n_blocks: int = setting(ge=1)
    n_heads: int = setting(ge=1)
    dropout: float = setting(ge=0, lt=1)
    max_history: int = setting(ge=1)

    def __post_init__(self) -> None:
        """Refuse a width that the heads cannot share.

        Raises:
            ValueError: `emb_dim` is no multiple of `n_heads`.
        """
        if self.emb_dim % self.n_heads:
            raise ValueError(f"emb_dim = {self.emb_dim} must be a multiple of n_heads = {self.n_heads}")


class Block(nn.Module):
    """One attention block: [B, L, D] -> [B, L, D], causal."""

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
        """Right-padded states; padding follows the items, so causality alone hides it from them."""
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
        """A model for the items of `data`."""
        return cls(settings, data.n_items)

    def states(self, items: Tensor) -> Tensor:
        """[B, L, D] state after each item of right-padded [B, L] histories; states of padding mean nothing."""
        length = (items != 0).sum(dim=1, keepdim=True)  # [B, 1]
        back = (length - 1 - torch.arange(items.shape[1], device=items.device)).clamp(min=0)  # [B, L]
        embedded = self.item(items) * self.item.embedding_dim**0.5 + self.position(back)
        states = F.dropout(embedded, self.dropout, self.training)
        for block in self.blocks:
            states = block(states)
        normed: Tensor = self.last_norm(states)
        return normed

    def loss(self, batch: HistoryBatch) -> dict[str, Tensor]:
        """Cross-entropy over all items, mean over the positions that have a target."""
        states, targets = [], []
        for items, wanted in _by_length(batch.items, batch.targets):
            at = wanted != 0
            states.append(self.states(items)[at])
            targets.append(wanted[at])
        term = softmax_cross_entropy_loss(torch.cat(states), self.item.weight[1:], torch.cat(targets) - 1)
        return {"cross_entropy": term}

    def encode(self) -> Encoded:
        """Item vectors: the embedding table."""
        return Encoded(items=self.item.weight)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """[B, D] state after the last item; a user without history gets zeros, and so equal scores."""
        length = (batch.items != 0).sum(dim=1)
        vectors = encoded.items.new_zeros(len(batch.items), encoded.items.shape[1])
        order = torch.argsort(length, stable=True)
        for rows in order[length[order] > 0].split(256):
            last = length[rows] - 1
            states = self.states(batch.items[rows, : int(last.max()) + 1])
            vectors[rows] = states[torch.arange(len(rows), device=states.device), last]
        return vectors


def _by_length(items: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Parts of a batch with lengths in (2^(g-1), 2^g], each cut to its longest: same sums, little padding."""
    length = (items != 0).sum(dim=1)
    group = torch.where(length > 0, length.clamp(min=1).log2().ceil().long(), -1)
    parts = []
    for value in torch.unique(group[group >= 0]).tolist():
        rows = torch.nonzero(group == value).squeeze(1)
        width = int(length[rows].max())
        parts.append((items[rows, :width], targets[rows, :width]))
    return parts
