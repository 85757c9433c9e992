"""SLMRec: self-supervised learning for multimedia recommendation, with its fine-and-coarse task (FAC).

Tao et al., "Self-supervised Learning for Multimedia Recommendation", IEEE Transactions on Multimedia 2022, in the form
of MMRec's implementation. In order:

- LightGCN propagation, mean of layers 0..L, of the item embeddings and of each modality's mapped features. All use the
  same user table. The results are `(i_U, i_I)` and `(m_U, m_I)`.
- `z_u` and `z_i` are linear maps of the concatenated vectors of the user and of the item. Score: `z_u . z_i`.
- Main loss: softmax over the cosines of `z_u` with all items of the batch, divided by `temperature`.
- FAC: a chain of linear layers starts at the item vector. Each state of the chain is contrasted with the head of one
  modality, from the finest to the coarsest; the head of the coarsest has half the width. The contrast uses inner
  products divided by `ssl_temperature`, without normalisation.

The order of the chain is image, audio, all others by name, and text. With one modality, there is one contrast, at the
start of the chain. With two, there is one more step between them, which MMRec keeps from the form for three modalities.
With three, the second modality is contrasted at that step.

Deviations: the paper's feature dropout and feature masking tasks are left out, as in the public code. Copies of a user
or item in the same batch are negatives of each other, as in the public code. The public scores are the sigmoid of
these scores, which changes no rank.

`missing_features: masked`: in a modality that an item lacks, its mapped feature is zero, bias included, so that it adds
nothing to the fusion and sends nothing along the graph. What its users and their other items send to it stays, as this
is no feature of the item. The contrast of this modality leaves it out, as state and as candidate, and is the mean over
the other items of the batch (zero if there is none). The other contrasts of the chain keep it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.graphs.propagation import propagate_mean
from hellm_recbole.graphs.sparse import SparseOperator, normalize_interactions
from hellm_recbole.models.losses import softmax_cross_entropy_loss
from hellm_recbole.models.modalities import (
    Coverage,
    ItemFeatures,
    MissingFeatures,
    build_feature_maps,
    read_item_features,
    sum_terms,
    take_rows,
)
from hellm_recbole.types import Encoded, FloatArray, PairBatch, QueryBatch, TrainData

CHAIN_START, CHAIN_END = ("image", "audio"), ("text",)


class SLMRecSettings(Settings):
    """Hyper-parameters of SLMRec.

    Attributes:
        emb_dim: D, width of the embeddings, at least 2.
        n_layers: L, number of layers on the user-item graph.
        modalities: modalities of the chain; null uses all of the dataset but `text_...`.
        missing_features: how items without a text or picture are treated: `filled`, like any other item, with the fill
            value of the data; `masked`, left out of the modality.
        temperature: temperature of the main loss.
        ssl_weight: alpha, weight of the contrasts of the chain.
        ssl_temperature: tau, temperature of the contrasts of the chain.
    """

    emb_dim: int = Field(ge=2)
    n_layers: int = Field(ge=0)
    modalities: tuple[str, ...] | None
    missing_features: MissingFeatures
    temperature: float = Field(gt=0)
    ssl_weight: float = Field(ge=0)
    ssl_temperature: float = Field(gt=0)


def compute_info_nce_loss(query: Tensor, items: Tensor, temperature: float) -> Tensor:
    """Compute the InfoNCE loss of [B, D] queries, in one direction.

    It is the mean cross-entropy of each query, with the item in the same row as target and all rows as candidates.

    Args:
        query: [B, D] queries.
        items: [B, D] items; row b belongs to query b.
        temperature: divisor of the inner products.

    Returns:
        Scalar.
    """
    return softmax_cross_entropy_loss(query / temperature, items, torch.arange(len(items), device=items.device))


def order_chain(names: Mapping[str, FloatArray]) -> list[str]:
    """Order the modalities of the chain from the finest to the coarsest.

    >>> order_chain({"text": 0, "video": 0, "audio": 0, "image": 0})
    ['image', 'audio', 'video', 'text']
    """
    middle = sorted(set(names) - {*CHAIN_START, *CHAIN_END})
    return [name for name in (*CHAIN_START, *middle, *CHAIN_END) if name in names]


class SLMRec(nn.Module):
    """SLMRec: two embedding tables, the user-item graph, frozen features, their maps, two fusions and the chain."""

    max_history = 0

    def __init__(self, settings: SLMRecSettings, interactions: SparseOperator, item_features: ItemFeatures) -> None:
        super().__init__()
        self.coverage, features = Coverage(item_features.covered), item_features.values
        self.settings, self.interactions, self.chain = settings, interactions, order_chain(features)
        n_user_rows, n_item_rows = interactions.shape
        width, n_modalities = settings.emb_dim, len(self.chain)
        self.user = nn.Embedding(n_user_rows, width)
        self.item = nn.Embedding(n_item_rows, width)
        for name, matrix in features.items():
            unit = F.normalize(torch.from_numpy(np.asarray(matrix)), dim=1)
            self.register_buffer(f"features_{name}", unit, persistent=False)
        self.maps = build_feature_maps(features, width)
        self.fuse_user, self.fuse_item = (
            nn.Linear((1 + n_modalities) * width, width),
            nn.Linear((1 + n_modalities) * width, width),
        )
        self.first = nn.Linear(width, width)
        self.steps = nn.ModuleList(
            nn.Linear(width, width) for _ in range(max(n_modalities - 2, 1) if n_modalities > 1 else 0)
        )
        self.last = nn.Linear(width, width // 2) if n_modalities > 1 else None
        head_widths = {self.chain[-1]: width // 2} if n_modalities > 1 else {}
        self.heads = nn.ModuleDict({name: nn.Linear(width, head_widths.get(name, width)) for name in self.chain})
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.xavier_uniform_(module.weight)

    @classmethod
    def build(cls, settings: SLMRecSettings, data: TrainData) -> SLMRec:
        """Build a model from the training graph and the chosen modalities of `data`.

        Raises:
            ModelError: there is no modality, a chosen modality is missing, or its mask is.
        """
        features = read_item_features("SLMRec", settings.modalities, settings.missing_features, data)
        return cls(settings, SparseOperator(normalize_interactions(data.history, data.n_items)), features)

    def propagate(self) -> tuple[list[Tensor], list[Tensor]]:
        """Propagate the item embeddings and the mapped features of each modality, in the order of the chain.

        Returns:
            Two lists, of [U + 1, D] user vectors and of [I + 1, D] item vectors; the first entry is of the embeddings.
        """
        mapped = {name: self.maps[name](getattr(self, f"features_{name}")) for name in self.chain}
        starts = [self.item.weight, *(self.coverage.clear_missing(name, part) for name, part in mapped.items())]
        pairs = [propagate_mean(self.user.weight, start, self.interactions, self.settings.n_layers) for start in starts]
        return [user for user, _ in pairs], [item for _, item in pairs]

    def encode(self) -> Encoded:
        """Compute the fused vectors z."""
        users, items = self.propagate()
        return Encoded(items=self.fuse_item(torch.cat(items, dim=1)), users=self.fuse_user(torch.cat(users, dim=1)))

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Return the [B, D] user vectors."""
        return encoded.select_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute the main contrast and the chain; the negatives of the batch are not used."""
        users, items = self.propagate()
        batch_users = [F.embedding(batch.user, part) for part in users]
        batch_items = [F.embedding(batch.positive, part) for part in items]
        user = F.normalize(self.fuse_user(torch.cat(batch_users, dim=1)), dim=1)
        item = F.normalize(self.fuse_item(torch.cat(batch_items, dim=1)), dim=1)
        return {
            "contrast": compute_info_nce_loss(user, item, self.settings.temperature),
            "ssl": self.settings.ssl_weight * self.compute_chain_loss(batch.positive, batch_items),
        }

    def compute_chain_loss(self, ids: Tensor, items: list[Tensor]) -> Tensor:
        """Compute the sum of the contrasts along the chain.

        Args:
            ids: [B] ids of the items.
            items: [B, D] vectors of the items: first of the embeddings, then of each modality of the chain.

        Returns:
            Scalar.
        """
        state = self.first(items[0])
        steps = list(self.steps)
        terms = []
        for index, (name, vectors) in enumerate(zip(self.chain, items[1:], strict=True)):
            if index > 0 and steps:
                state = steps.pop(0)(state)
            if self.last is not None and index == len(self.chain) - 1:
                state = self.last(state)
            rows = self.coverage.select_rows(name, [ids])
            if rows is None or len(rows):
                own, other = take_rows(state, rows), self.heads[name](take_rows(vectors, rows))
                terms.append(compute_info_nce_loss(own, other, self.settings.ssl_temperature))
        return sum_terms(terms, state)
