"""BM3: bootstrapped multimodal recommendation without negatives.

Zhou et al., "Bootstrap Latent Representations for Multi-modal Recommendation", WWW 2023. In the paper's order:

- `z_U` and `y_I` are the means of layers 0..L of LightGCN propagation. `z_I = y_I + E_I` adds the item embedding.
- `m_i = W_m f_i^m + b_m` in each modality m.
- Targets are vectors after dropout, without gradient, marked with '. q is a linear predictor, and
  `c(a, b) = 1 - mean of the cosines of a and b` over the positive pairs of the batch.
- Reconstruction of interactions: `c(q(z_u), z_i') + c(q(z_i), z_u')`.
- Alignment between modalities: `w c(q(m_i), z_i')`. Alignment within each modality: `w c(q(m_i), m_i')`.
- Penalty: `lambda (||z_U|| + ||z_I||) / I`, with the norms, not squared, of the whole tables.
- Score: `q(z_u) . q(z_i)`.

Deviations: the model accepts any set of modalities (the paper has image and text). It takes the rows of the batch
before dropout, while the public code applies dropout to whole tables. This is much less work and has the same
distribution, except for a user or item that occurs twice in a batch: here its two targets have different dropout
masks. Features are trainable tables, as in the public code.

`missing_features: masked`: both alignments of a modality are means over the pairs whose item has features in it (zero
if the batch has none), because an item without features has no m_i to align. The vectors z are made of embeddings
alone, so nothing else reads features. The table's rows of such items stay zero.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.graphs.propagation import propagate_mean
from hellm_recbole.graphs.sparse import SparseOperator, normalize_interactions
from hellm_recbole.models.modalities import (
    Coverage,
    ItemFeatures,
    MissingFeatures,
    build_feature_maps,
    build_feature_tables,
    read_item_features,
    sum_terms,
    take_rows,
)
from hellm_recbole.types import Encoded, PairBatch, QueryBatch, TrainData


class BM3Settings(Settings):
    """Hyper-parameters of BM3.

    Attributes:
        emb_dim: D, width of the embeddings.
        n_layers: L, number of layers on the user-item graph.
        modalities: modalities to align; null uses all of the dataset but `text_...`.
        missing_features: how items without a text or picture are treated: `filled`, like any other item, with the fill
            value of the data; `masked`, left out of the modality.
        dropout: dropout probability of the targets.
        modality_weight: w, weight of the alignments.
        norm_weight: lambda, weight of the penalty.
    """

    emb_dim: int = Field(ge=1)
    n_layers: int = Field(ge=0)
    modalities: tuple[str, ...] | None
    missing_features: MissingFeatures
    dropout: float = Field(ge=0, lt=1)
    modality_weight: float = Field(ge=0)
    norm_weight: float = Field(ge=0)


def compute_cosine_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute `1 - mean cosine` of the corresponding rows of two [B, D] matrices."""
    return 1.0 - F.cosine_similarity(prediction, target, dim=1).mean()


class BM3(nn.Module):
    """BM3: two embedding tables, the user-item graph, features and a map for each modality, and the predictor."""

    max_history = 0

    def __init__(self, settings: BM3Settings, interactions: SparseOperator, item_features: ItemFeatures) -> None:
        super().__init__()
        self.coverage, features = Coverage(item_features.covered), item_features.values
        self.settings, self.interactions = settings, interactions
        n_user_rows, n_item_rows = interactions.shape
        self.user = nn.Embedding(n_user_rows, settings.emb_dim)
        self.item = nn.Embedding(n_item_rows, settings.emb_dim)
        nn.init.xavier_uniform_(self.user.weight)
        nn.init.xavier_uniform_(self.item.weight)
        self.features = build_feature_tables(features)
        self.maps = build_feature_maps(features, settings.emb_dim)
        self.predictor = nn.Linear(settings.emb_dim, settings.emb_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)

    @classmethod
    def build(cls, settings: BM3Settings, data: TrainData) -> BM3:
        """Build a model from the training graph and the chosen modalities of `data`.

        Raises:
            ModelError: there is no modality, a chosen modality is missing, or its mask is.
        """
        features = read_item_features("BM3", settings.modalities, settings.missing_features, data)
        return cls(settings, SparseOperator(normalize_interactions(data.history, data.n_items)), features)

    def compute_vectors(self) -> tuple[Tensor, Tensor]:
        """Compute the vectors z of users [U + 1, D] and items [I + 1, D]."""
        user, item = propagate_mean(self.user.weight, self.item.weight, self.interactions, self.settings.n_layers)
        return user, item + self.item.weight

    def encode(self) -> Encoded:
        """Compute the predictions q(z) of all users and items."""
        user, item = self.compute_vectors()
        return Encoded(items=self.predictor(item), users=self.predictor(user))

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Return the [B, D] predictions of the users."""
        return encoded.select_users(batch.user)

    def make_target(self, vectors: Tensor) -> Tensor:
        """Make a target of [B, D] vectors: apply dropout and remove the gradient."""
        return F.dropout(vectors.detach(), self.settings.dropout, self.training)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute the reconstruction, the alignments and the penalty; the negatives of the batch are not used."""
        settings = self.settings
        users, items = self.compute_vectors()
        user, item = F.embedding(batch.user, users), F.embedding(batch.positive, items)
        user_target, item_target = self.make_target(user), self.make_target(item)
        between, within = [], []
        for name, table in self.features.items():
            rows = self.coverage.select_rows(name, [batch.positive])
            if rows is not None and len(rows) == 0:
                continue
            projected = self.maps[name](table(take_rows(batch.positive, rows)))
            predicted = self.predictor(projected)
            between.append(compute_cosine_distance(predicted, take_rows(item_target, rows)))
            within.append(compute_cosine_distance(predicted, self.make_target(projected)))
        norms = users[1:].norm() + items[1:].norm()
        return {
            "user_item": compute_cosine_distance(self.predictor(user), item_target)
            + compute_cosine_distance(self.predictor(item), user_target),
            "alignment": settings.modality_weight * sum_terms(between, items),
            "within": settings.modality_weight * sum_terms(within, items),
            "norm": settings.norm_weight * norms / (len(items) - 1),
        }
