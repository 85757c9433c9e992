"""LightGCN: collaborative filtering by linear propagation on the user-item graph.

He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020.

- Eq. 7: `X^(l+1) = D^-1/2 A D^-1/2 X^(l)`.
- Eq. 4, with alpha_l = 1 / (L + 1): `Z = mean of X^(0) .. X^(L)`. Score: `z_u . z_i`.
- Eq. 15: BPR plus `lambda ||X^(0)||^2`, on the batch's rows and divided by the batch size, as in the released code.

Deviations: none from the paper. RecBole and MMRec use the norm of the same rows, not squared, as the penalty. Their
initial embeddings have Xavier's uniform distribution instead of the paper's normal distribution.

Settings: those of RecBoard (MTandHJ/RecBoard, LightGCN/configs), whose penalty and sampling are the same, but with a
larger learning rate, 5e-3 (RecBoard: 1e-3), and the paper's deviation of initial embeddings, 0.1 (RecBoard: 1e-4).
`LightGCN-recboard` has RecBoard's own values.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.graphs.propagation import propagate_mean
from hellm_recbole.graphs.sparse import SparseOperator, normalize_interactions
from hellm_recbole.models.losses import bpr_loss_of_vectors, l2_loss
from hellm_recbole.types import Encoded, PairBatch, QueryBatch, TrainData


class LightGCNSettings(Settings):
    """Hyper-parameters of LightGCN.

    Attributes:
        emb_dim: D, width of the embeddings.
        n_layers: L, number of layers on the user-item graph.
        l2_weight: lambda, weight of the L2 penalty.
        init_std: standard deviation of the normal initial embeddings.
    """

    emb_dim: int = Field(ge=1)
    n_layers: int = Field(ge=0)
    l2_weight: float = Field(ge=0)
    init_std: float = Field(gt=0)


class LightGCN(nn.Module):
    """LightGCN: two embedding tables and the user-item graph."""

    max_history = 0

    def __init__(self, settings: LightGCNSettings, interactions: SparseOperator) -> None:
        super().__init__()
        self.settings = settings
        self.interactions = interactions
        n_user_rows, n_item_rows = interactions.shape
        self.user = nn.Embedding(n_user_rows, settings.emb_dim)
        self.item = nn.Embedding(n_item_rows, settings.emb_dim)
        nn.init.normal_(self.user.weight, std=settings.init_std)
        nn.init.normal_(self.item.weight, std=settings.init_std)

    @classmethod
    def build(cls, settings: LightGCNSettings, data: TrainData) -> LightGCN:
        """Build a model from the training graph of `data`."""
        return cls(settings, SparseOperator(normalize_interactions(data.history, data.n_items)))

    def encode(self) -> Encoded:
        """Compute the propagated vectors Z."""
        user, item = propagate_mean(self.user.weight, self.item.weight, self.interactions, self.settings.n_layers)
        return Encoded(items=item, users=user)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Return the [B, D] propagated user vectors."""
        return encoded.select_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute the BPR on the propagated vectors and the L2 penalty on the layer-0 embeddings."""
        encoded = self.encode()
        user, positive, negative = (
            encoded.select_users(batch.user),
            encoded.select_items(batch.positive),
            encoded.select_items(batch.negative),
        )
        initial = self.user(batch.user), self.item(batch.positive), self.item(batch.negative)
        return {
            "bpr": bpr_loss_of_vectors(user, positive, negative),
            "l2": self.settings.l2_weight * l2_loss(*initial),
        }
