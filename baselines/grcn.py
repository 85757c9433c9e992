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

`missing_features: masked`, for an item without features in a modality:

- its f and its C are zero, and routing and the softmax of affinities leave its edges out: an edge without content has
  no affinity in this modality, and may not take a share from the edges that have one;
- the maximum over the modalities leaves this modality out on its edges;
- if it lacks all modalities, nothing can refine its edges. They keep the affinity 1 / degree of the node where they
  end, which equal inner products would give, so that its interactions are still propagated.
"""

from __future__ import annotations

import math
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
from hellm_recbole.models.modalities import (
    Coverage,
    ItemFeatures,
    MissingFeatures,
    build_feature_maps,
    read_item_features,
)
from hellm_recbole.types import Encoded, PairBatch, QueryBatch, TrainData


class GRCNSettings(Settings):
    """Hyper-parameters of GRCN.

    Attributes:
        emb_dim: D, width of the id vectors and of the vectors of each modality.
        n_routing: r, number of routing steps.
        routing: `paper` or `public`; see the deviations above.
        n_refined_layers: number of propagation layers on the refined user-item graph.
        modalities: modalities to read; null uses all of the dataset but `text_...`.
        missing_features: how items without a text or picture are treated: `filled`, like any other item, with the fill
            value of the data; `masked`, left out of the modality.
        l2_weight: weight of the L2 penalty.
    """

    emb_dim: int = Field(ge=1)
    n_routing: int = Field(ge=0)
    routing: Literal["paper", "public"]
    n_refined_layers: int = Field(ge=0)
    modalities: tuple[str, ...] | None
    missing_features: MissingFeatures
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

    def __init__(self, settings: GRCNSettings, edges: EdgePattern, item_features: ItemFeatures) -> None:
        super().__init__()
        self.settings, self.edges = settings, edges
        self.coverage, features = Coverage(item_features.covered), item_features.values
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
            ModelError: there is no modality, a chosen modality is missing, or its mask is.
        """
        features = read_item_features("GRCN", settings.modalities, settings.missing_features, data)
        return cls(settings, EdgePattern.from_matrix(build_interaction_matrix(data.history, data.n_items)), features)

    def compute_content(self, name: str) -> Content:
        """Compute the routing, the affinities and the content vectors in one modality."""
        edges, kept = self.edges, self._find_known_edges(name)
        item = F.normalize(F.leaky_relu(self.maps[name](getattr(self, f"features_{name}"))), dim=1)
        item = self.coverage.clear_missing(name, item)
        table: Tensor = self.preferences[name].weight  # type: ignore[assignment]
        user = F.normalize(table, dim=1)
        if self.settings.routing == "paper":
            for _ in range(self.settings.n_routing):
                attention = edges.compute_row_softmax(edges.compute_dots(user, item), kept)
                user = F.normalize(user + edges.multiply(attention, item), dim=1)
        affinity = edges.compute_dots(user, item)
        to_user, to_item = edges.compute_row_softmax(affinity, kept), edges.compute_column_softmax(affinity, kept)
        return Content(
            user + edges.multiply(to_user, item), item + edges.multiply_transposed(to_item, user), to_user, to_item
        )

    def _find_known_edges(self, name: str) -> Tensor | None:
        """Find [E] whether the item of each edge has features in a modality; None if all have."""
        mask = self.coverage.get_mask(name)
        return None if mask is None else mask.index_select(0, self.edges.column)

    def _compute_refined_weights(self, affinities: list[Tensor], confidence: Tensor, end: Tensor) -> Tensor:
        """Compute the weights of the refined edges in one direction.

        Args:
            affinities: [E] affinity of each edge, one tensor for each of M modalities.
            confidence: [E, M] confidence of the source of each edge.
            end: [E] node where each edge ends.

        Returns:
            [E] weights.
        """
        affinity = torch.stack(affinities, dim=1)
        masks = [self._find_known_edges(name) for name in self.maps]
        if all(mask is None for mask in masks):
            return F.relu((affinity * confidence).amax(dim=1))
        known = torch.stack([torch.ones_like(end, dtype=torch.bool) if m is None else m for m in masks], dim=1)
        undescribed = ~known.any(dim=1, keepdim=True)
        equal = 1.0 / torch.bincount(end).to(affinity.dtype).index_select(0, end)
        affinity = torch.where(undescribed, equal.unsqueeze(1), affinity)
        weight = (affinity * confidence).masked_fill(~(known | undescribed), -torch.inf)
        return F.relu(weight.amax(dim=1))

    def encode(self) -> Encoded:
        """Compute the vectors Z of all users and items."""
        edges, contents = self.edges, [self.compute_content(name) for name in self.maps]
        # [E, M] confidence of each edge's source in each modality
        item_confidence = self.item_confidence.weight.index_select(0, edges.column)
        user_confidence = self.user_confidence.weight.index_select(0, edges.row)
        user_weight = self._compute_refined_weights([part.to_user for part in contents], item_confidence, edges.row)
        item_weight = self._compute_refined_weights([part.to_item for part in contents], user_confidence, edges.column)
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
