"""SLMRec: self-supervised learning for multimedia recommendation, with its fine-and-coarse task (FAC).

Tao et al., "Self-supervised Learning for Multimedia Recommendation", IEEE Transactions on Multimedia 2022; the form
that MMRec compares with. In order:

- LightGCN propagation, mean of layers 0..L, of the item embeddings and of each modality's mapped features, all with the
  same user table: `(i_U, i_I)` and `(m_U, m_I)`.
- `z_u` and `z_i` are linear in the user's and the item's vectors side by side; score `z_u . z_i`.
- Main loss: softmax over the batch of cosines of `z_u` with the items of the batch, at `temperature`.
- FAC: a chain of linear heads starts at the item vector; each of its states is contrasted with a head of one modality,
  from the finest to the coarsest, whose head has half the width. Inner products at `ssl_temperature`; not normalised.

The chain takes image, audio, any others by name, and text last. With one modality it is one contrast at its start. With
two it has a step between both, which MMRec keeps from the three-modality form; with three, the middle one is contrasted
at that step.

Deviations: the paper's feature dropout and feature masking tasks are left out, as in the public code. Users and items
that occur twice in a batch are negatives of each other, as there. The public scores pass through a sigmoid, which
changes no rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.config.layers import setting
from hellm_recbole.graphs.propagation import propagate_mean
from hellm_recbole.graphs.sparse import SparseOperator, normalize_interactions
from hellm_recbole.models.losses import softmax_cross_entropy_loss
from hellm_recbole.models.modalities import build_feature_maps, choose_modalities
from hellm_recbole.types import Encoded, FloatArray, PairBatch, QueryBatch, TrainData

CHAIN_START, CHAIN_END = ("image", "audio"), ("text",)


@dataclass(frozen=True)
class SLMRecSettings:
    """Hyper-parameters of SLMRec.

    Attributes:
        emb_dim: D, at least 2.
        n_layers: L.
        modalities: of the chain; null takes all that the dataset has.
        temperature: of the main loss.
        ssl_weight: alpha, of the chain's contrasts.
        ssl_temperature: tau, of the chain's contrasts.
    """

    emb_dim: int = setting(ge=2)
    n_layers: int = setting(ge=0)
    modalities: tuple[str, ...] | None = setting()
    temperature: float = setting(gt=0)
    ssl_weight: float = setting(ge=0)
    ssl_temperature: float = setting(gt=0)


def info_nce_loss(query: Tensor, items: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each of the [B, D] queries with its own row of items against the others, in one direction."""
    return softmax_cross_entropy_loss(query / temperature, items, torch.arange(len(items), device=items.device))


def order_chain(names: Mapping[str, FloatArray]) -> list[str]:
    """Modalities from the finest to the coarsest.

    >>> order_chain({"text": 0, "video": 0, "audio": 0, "image": 0})
    ['image', 'audio', 'video', 'text']
    """
    middle = sorted(set(names) - {*CHAIN_START, *CHAIN_END})
    return [name for name in (*CHAIN_START, *middle, *CHAIN_END) if name in names]


class SLMRec(nn.Module):
    """Two embedding tables, the graph, frozen features with a map each, two fusions and the heads of the chain."""

    max_history = 0

    def __init__(
        self, settings: SLMRecSettings, interactions: SparseOperator, features: Mapping[str, FloatArray]
    ) -> None:
        super().__init__()
        self.settings, self.interactions, self.chain = settings, interactions, order_chain(features)
        n_user_rows, n_item_rows = interactions.shape
        width, n = settings.emb_dim, len(self.chain)
        self.user = nn.Embedding(n_user_rows, width)
        self.item = nn.Embedding(n_item_rows, width)
        for name, matrix in features.items():
            unit = F.normalize(torch.from_numpy(np.asarray(matrix)), dim=1)
            self.register_buffer(f"features_{name}", unit, persistent=False)
        self.maps = build_feature_maps(features, width)
        self.fuse_user, self.fuse_item = nn.Linear((1 + n) * width, width), nn.Linear((1 + n) * width, width)
        self.first = nn.Linear(width, width)
        self.steps = nn.ModuleList(nn.Linear(width, width) for _ in range(max(n - 2, 1) if n > 1 else 0))
        self.last = nn.Linear(width, width // 2) if n > 1 else None
        ends = {self.chain[-1]: width // 2} if n > 1 else {}
        self.heads = nn.ModuleDict({name: nn.Linear(width, ends.get(name, width)) for name in self.chain})
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.xavier_uniform_(module.weight)

    @classmethod
    def build(cls, settings: SLMRecSettings, data: TrainData) -> SLMRec:
        """A model on the training graph and the chosen modalities of `data`.

        Raises:
            ModelError: there is no modality, or one is missing.
        """
        features = choose_modalities("SLMRec", settings.modalities, data.features)
        return cls(settings, SparseOperator(normalize_interactions(data.history, data.n_items)), features)

    def propagated(self) -> tuple[list[Tensor], list[Tensor]]:
        """[U + 1, D] user and [I + 1, D] item vectors of the embeddings and of each modality of the chain."""
        starts = [self.item.weight, *(self.maps[name](getattr(self, f"features_{name}")) for name in self.chain)]
        pairs = [propagate_mean(self.user.weight, start, self.interactions, self.settings.n_layers) for start in starts]
        return [user for user, _ in pairs], [item for _, item in pairs]

    def encode(self) -> Encoded:
        """Fused vectors z."""
        users, items = self.propagated()
        return Encoded(items=self.fuse_item(torch.cat(items, dim=1)), users=self.fuse_user(torch.cat(users, dim=1)))

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """[B, D] user vectors."""
        return encoded.of_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Main contrast and the chain; the negatives of the batch are not read."""
        users, items = self.propagated()
        own = [F.embedding(batch.user, part) for part in users]
        seen = [F.embedding(batch.positive, part) for part in items]
        user = F.normalize(self.fuse_user(torch.cat(own, dim=1)), dim=1)
        item = F.normalize(self.fuse_item(torch.cat(seen, dim=1)), dim=1)
        return {
            "contrast": info_nce_loss(user, item, self.settings.temperature),
            "ssl": self.settings.ssl_weight * self.chain_contrast(seen),
        }

    def chain_contrast(self, items: list[Tensor]) -> Tensor:
        """Sum of the contrasts along the chain, for [B, D] vectors of the item and of each modality."""
        state = self.first(items[0])
        steps = list(self.steps)
        terms = []
        for at, (name, vectors) in enumerate(zip(self.chain, items[1:], strict=True)):
            if at > 0 and steps:
                state = steps.pop(0)(state)
            if self.last is not None and at == len(self.chain) - 1:
                state = self.last(state)
            terms.append(info_nce_loss(state, self.heads[name](vectors), self.settings.ssl_temperature))
        return torch.stack(terms).sum()
