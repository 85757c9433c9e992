"""GRCN: a user-item graph refined by the modalities.

Wei et al., "Graph-Refined Convolutional Network for Multimedia Recommendation with Implicit Feedback", ACM Multimedia
2020. In the paper's order:

- In each modality items are `f = norm(LeakyReLU(W x + b))` and users start at prototypes `p = norm(Pi)`. Routing, r
  times: `p_u <- norm(p_u + sum_i softmax_i(p_u . f_i) f_i)` over the user's items.
- Affinity of an edge: softmax of `p_u . f_i` over the edges that arrive at the same node, one for each direction;
  content vectors `C` add the affinity-weighted neighbours to p and f.
- Refined edges: `w = ReLU(max over modalities of affinity x confidence of the edge's source)`.
- Id vectors `x = norm(X)`, propagated twice with w; `Y` is the sum of the three layers.
- `Z = [Y | C of each modality]`, score `z_u . z_i`; BPR and an L2 penalty on the batch's rows of X and Pi.

Deviations: in the public code the messages of routing arrive at items, so users' prototypes never change; `routing:
public` is that behaviour, the default `paper` is the paper's. The penalty is the released code's mean of squares; a
further term of MMRec's over one whole table is left out. Evaluation computes the vectors anew, where the public code
scores with those of the last training step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.config.layers import setting
from hellm_recbole.graphs.sparse import EdgePattern, build_interaction_matrix
from hellm_recbole.models.losses import bpr_loss_of_vectors
from hellm_recbole.models.modalities import build_feature_maps, choose_modalities
from hellm_recbole.types import Encoded, FloatArray, PairBatch, QueryBatch, TrainData

N_LAYERS = 2  # of the refined graph (paper and released code)


@dataclass(frozen=True)
class GRCNSettings:
    """Hyper-parameters of GRCN.

    Attributes:
        emb_dim: D, of the id vectors and of each modality's.
        n_routing: r.
        routing: paper or public.
        modalities: whose features are read; null takes all that the dataset has.
        l2_weight: weight of the L2 penalty.
    """

    emb_dim: int = setting(ge=1)
    n_routing: int = setting(ge=0)
    routing: str = setting(choices=("paper", "public"))
    modalities: tuple[str, ...] | None = setting()
    l2_weight: float = setting(ge=0)


@dataclass(frozen=True)
class Content:
    """One modality's part: content vectors, and the affinity of each edge in both directions.

    Attributes:
        user: [U + 1, D].
        item: [I + 1, D].
        to_user: [E] sums to 1 over the edges of a user.
        to_item: [E] sums to 1 over the edges of an item.
    """

    user: Tensor
    item: Tensor
    to_user: Tensor
    to_item: Tensor


class GRCN(nn.Module):
    """The id table in two, prototypes and a feature map for each modality, and each node's confidence in each."""

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
        for pair in ((self.user, self.item), (self.user_confidence, self.item_confidence)):  # one table in two
            n_rows = n_user_rows + n_item_rows - len(pair)  # without padding
            for part in pair:
                nn.init.normal_(part.weight, std=math.sqrt(2.0 / (n_rows + part.embedding_dim)))

    @classmethod
    def build(cls, settings: GRCNSettings, data: TrainData) -> GRCN:
        """A model on the training graph and the chosen modalities of `data`.

        Raises:
            ModelError: there is no modality, or one is missing.
        """
        features = choose_modalities("GRCN", settings.modalities, data.features)
        return cls(settings, EdgePattern.of(build_interaction_matrix(data.history, data.n_items)), features)

    def content(self, name: str) -> Content:
        """Routing and attention in one modality."""
        edges = self.edges
        item = F.normalize(F.leaky_relu(self.maps[name](getattr(self, f"features_{name}"))), dim=1)
        table: Tensor = self.preferences[name].weight  # type: ignore[assignment]
        user = F.normalize(table, dim=1)
        if self.settings.routing == "paper":
            for _ in range(self.settings.n_routing):
                attention = edges.softmax_in_rows(edges.dots(user, item))
                user = F.normalize(user + edges.product(attention, item), dim=1)
        affinity = edges.dots(user, item)
        to_user, to_item = edges.softmax_in_rows(affinity), edges.softmax_in_columns(affinity)
        return Content(
            user + edges.product(to_user, item), item + edges.transposed_product(to_item, user), to_user, to_item
        )

    def encode(self) -> Encoded:
        """Vectors Z of all users and items."""
        edges, contents = self.edges, [self.content(name) for name in self.maps]
        of_items = self.item_confidence.weight.index_select(0, edges.column)  # [E, M] confidence of each edge's source
        of_users = self.user_confidence.weight.index_select(0, edges.row)
        to_user = torch.stack([part.to_user for part in contents], dim=1) * of_items
        to_item = torch.stack([part.to_item for part in contents], dim=1) * of_users
        user_weight, item_weight = F.relu(to_user.amax(dim=1)), F.relu(to_item.amax(dim=1))  # [E]
        user, item = F.normalize(self.user.weight, dim=1), F.normalize(self.item.weight, dim=1)
        user_sum, item_sum = user, item
        for _ in range(N_LAYERS):
            user, item = edges.product(user_weight, item), edges.transposed_product(item_weight, user)
            user_sum, item_sum = user_sum + user, item_sum + item
        return Encoded(
            items=torch.cat([item_sum, *(part.item for part in contents)], dim=1),
            users=torch.cat([user_sum, *(part.user for part in contents)], dim=1),
        )

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """[B, (1 + M) D] user vectors."""
        return encoded.of_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """BPR, and the penalty on the batch's rows of the tables."""
        encoded = self.encode()
        user, positive, negative = (
            encoded.of_users(batch.user),
            encoded.of_items(batch.positive),
            encoded.of_items(batch.negative),
        )
        own, items = self.user(batch.user).square(), torch.cat([batch.positive, batch.negative])
        penalty = own.mean() + self.item(items).square().mean()
        for table in self.preferences.values():
            penalty = penalty + table(batch.user).square().mean()
        return {
            "bpr": bpr_loss_of_vectors(user, positive, negative),
            "l2": self.settings.l2_weight * penalty,
        }
