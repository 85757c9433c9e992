"""GRCN: a user-item graph with edge weights from the modalities.

Wei et al., "Graph-Refined Convolutional Network for Multimedia Recommendation with Implicit Feedback", ACM Multimedia
2020. In the paper's order:

- In each modality, the item vectors are `f = norm(LeakyReLU(W x + b))`, and the user vectors start as the prototypes
  `p = norm(Pi)`. Routing repeats r times `p_u <- norm(p_u + sum_i softmax_i(p_u . f_i) f_i)` over the user's items.
- The affinity of an edge is the softmax of `p_u . f_i` over the edges that end at the same node. An edge has one
  affinity for each direction. The content vectors `C` are p and f plus the affinity-weighted sum of the neighbours.
- Refined edges: `w = ReLU(max over modalities of affinity x confidence of the edge's source)`.
- Id vectors: `x = norm(X)`, propagated twice (`n_refined_layers`) with w; `Y` is the sum of the three layers.
- `Z = [Y | C of each modality]`. Score: `z_u . z_i`. Loss: BPR, and an L2 penalty on the batch's rows of X and Pi.

Deviations: in the public code the messages of routing are sent to items, so the users' prototypes never change.
`routing: public` is that behaviour; the default `paper` is that of the paper. The penalty is the mean of squares of the
released code, without MMRec's additional term over one whole table. An evaluation computes the vectors from the current
weights, while the public code scores with the vectors of the last training step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.graphs.edges import EdgePattern
from hellm_recbole.graphs.sparse import build_interaction_matrix
from hellm_recbole.models.losses import bpr_loss_of_vectors
from hellm_recbole.models.modalities import build_feature_maps, choose_modalities
from hellm_recbole.types import Encoded, FloatArray, PairBatch, QueryBatch, TrainData


class GRCNSettings(Settings):
    """Hyper-parameters of GRCN.

    Attributes:
        emb_dim: D, width of the id vectors and of the vectors of each modality.
        n_routing: r, number of routing steps.
        routing: `paper` or `public`; see the deviations above.
        n_refined_layers: number of propagation layers on the refined user-item graph.
        modalities: modalities to read; null uses all modalities of the dataset.
        l2_weight: weight of the L2 penalty.
    """

    emb_dim: int = Field(ge=1)
    n_routing: int = Field(ge=0)
    routing: Literal["paper", "public"]
    n_refined_layers: int = Field(ge=0)
    modalities: tuple[str, ...] | None
    l2_weight: float = Field(ge=0)


@dataclass(frozen=True)
class Content:
    """Content vectors of one modality, and the affinity of each edge in both directions.

    Attributes:
        user: [U + 1, D] content vectors of the users.
        item: [I + 1, D] content vectors of the items.
        to_user: [E] affinity of the edges from items to users; it sums to 1 over the edges of a user.
        to_item: [E] affinity of the edges from users to items; it sums to 1 over the edges of an item.
    """

    user: Tensor
    item: Tensor
    to_user: Tensor
    to_item: Tensor


class GRCN(nn.Module):
    """GRCN: id tables of users and items, and prototypes, a feature map and confidences for each modality."""

    max_history = 0

    def __init__(self, settings: GRCNSettings, edges: EdgePattern, features: Mapping[str, FloatArray]) -> None:
        super().__init__()
        self.settings, self.edges = settings, edges
        n_user_rows, n_item_rows = edges.shape
        width = settings.emb_dim
        for name, matrix in features.items():
            self.register_buffer(f"features_{name}", torch.from_numpy(np.asarray(matrix)), persistent=False)
        self.user = nn.Embedding(n_user_rows, width)
        self.item = nn.Embedding(n_item_rows, width)
        self.preferences = nn.ModuleDict({name: nn.Embedding(n_user_rows, width) for name in features})
        self.maps = build_feature_maps(features, width)
        self.user_confidence = nn.Embedding(n_user_rows, len(features))
        self.item_confidence = nn.Embedding(n_item_rows, len(features))
        for table in (*self.maps.values(), *self.preferences.values()):
            nn.init.xavier_normal_(table.weight)  # type: ignore[arg-type]
        for pair in (
            (self.user, self.item),
            (self.user_confidence, self.item_confidence),
        ):  # two parts of one table of the paper
            n_rows = n_user_rows + n_item_rows - len(pair)  # without padding
            for part in pair:
                nn.init.normal_(part.weight, std=math.sqrt(2.0 / (n_rows + part.embedding_dim)))

    @classmethod
    def build(cls, settings: GRCNSettings, data: TrainData) -> GRCN:
        """Build a model from the training graph and the chosen modalities of `data`.

        Raises:
            ModelError: there is no modality, or a chosen modality is missing.
        """
        features = choose_modalities("GRCN", settings.modalities, data.features)
        return cls(settings, EdgePattern.from_matrix(build_interaction_matrix(data.history, data.n_items)), features)

    def compute_content(self, name: str) -> Content:
        """Compute the routing, the affinities and the content vectors in one modality."""
        edges = self.edges
        item = F.normalize(F.leaky_relu(self.maps[name](getattr(self, f"features_{name}"))), dim=1)
        table: Tensor = self.preferences[name].weight  # type: ignore[assignment]
        user = F.normalize(table, dim=1)
        if self.settings.routing == "paper":
            for _ in range(self.settings.n_routing):
                attention = edges.compute_row_softmax(edges.compute_dots(user, item))
                user = F.normalize(user + edges.multiply(attention, item), dim=1)
        affinity = edges.compute_dots(user, item)
        to_user, to_item = edges.compute_row_softmax(affinity), edges.compute_column_softmax(affinity)
        return Content(
            user + edges.multiply(to_user, item), item + edges.multiply_transposed(to_item, user), to_user, to_item
        )

    def encode(self) -> Encoded:
        """Compute the vectors Z of all users and items."""
        edges, contents = self.edges, [self.compute_content(name) for name in self.maps]
        # [E, M] confidence of each edge's source in each modality
        item_confidence = self.item_confidence.weight.index_select(0, edges.column)
        user_confidence = self.user_confidence.weight.index_select(0, edges.row)
        to_user = torch.stack([part.to_user for part in contents], dim=1) * item_confidence
        to_item = torch.stack([part.to_item for part in contents], dim=1) * user_confidence
        user_weight, item_weight = F.relu(to_user.amax(dim=1)), F.relu(to_item.amax(dim=1))  # [E]
        user, item = F.normalize(self.user.weight, dim=1), F.normalize(self.item.weight, dim=1)
        user_sum, item_sum = user, item
        for _ in range(self.settings.n_refined_layers):
            user, item = edges.multiply(user_weight, item), edges.multiply_transposed(item_weight, user)
            user_sum, item_sum = user_sum + user, item_sum + item
        return Encoded(
            items=torch.cat([item_sum, *(part.item for part in contents)], dim=1),
            users=torch.cat([user_sum, *(part.user for part in contents)], dim=1),
        )

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Return the [B, (1 + M) D] user vectors, for M modalities."""
        return encoded.select_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute the BPR, and the penalty on the batch's rows of the tables."""
        encoded = self.encode()
        user, positive, negative = (
            encoded.select_users(batch.user),
            encoded.select_items(batch.positive),
            encoded.select_items(batch.negative),
        )
        user_squares, items = self.user(batch.user).square(), torch.cat([batch.positive, batch.negative])
        penalty = user_squares.mean() + self.item(items).square().mean()
        for table in self.preferences.values():
            penalty = penalty + table(batch.user).square().mean()
        return {
            "bpr": bpr_loss_of_vectors(user, positive, negative),
            "l2": self.settings.l2_weight * penalty,
        }
