"""BPR: matrix factorisation that ranks the items of a user above others.

Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.

- Section 4.3.1: score `x_ui = w_u . h_i`.
- Section 4.1, BPR-Opt: maximise `sum ln sigmoid(x_ui - x_uj) - lambda ||Theta||^2` over users u, their items i and
  other items j. Here: the mean over a batch, and lambda times half the squared norms of its rows, divided by its size.

Deviations: none from the paper in the model. As in RecBole: no item bias, Xavier's normal distribution of the initial
vectors, Adam in place of plain stochastic gradients, each training interaction once in an epoch in place of drawing
with replacement, and lambda 0 by default. RecBole's loss is `-log(1e-10 + sigmoid)`, ours the stable form without the
constant; they differ by less than 1e-6 unless a difference of scores is below about -9.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.models.losses import bpr_loss_of_vectors, l2_loss
from hellm_recbole.types import Encoded, PairBatch, QueryBatch, TrainData


class BPRSettings(Settings):
    """Hyper-parameters of BPR.

    Attributes:
        emb_dim: D, width of the embeddings.
        l2_weight: lambda, weight of the L2 penalty.
    """

    emb_dim: int = Field(ge=1)
    l2_weight: float = Field(ge=0)


class BPR(nn.Module):
    """BPR: two embedding tables.

    Args:
        settings: settings of the model.
        n_users: number of users U.
        n_items: number of items I.
    """

    max_history = 0

    def __init__(self, settings: BPRSettings, n_users: int, n_items: int) -> None:
        super().__init__()
        self.settings = settings
        self.user = nn.Embedding(n_users + 1, settings.emb_dim)
        self.item = nn.Embedding(n_items + 1, settings.emb_dim)
        nn.init.xavier_normal_(self.user.weight)
        nn.init.xavier_normal_(self.item.weight)

    @classmethod
    def build(cls, settings: BPRSettings, data: TrainData) -> BPR:
        """Build a model for the users and items of `data`."""
        return cls(settings, data.n_users, data.n_items)

    def encode(self) -> Encoded:
        """Return the embeddings of users and items."""
        return Encoded(items=self.item.weight, users=self.user.weight)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Return the [B, D] user vectors."""
        return encoded.select_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute the BPR and the L2 penalty on the embeddings of the batch."""
        vectors = self.user(batch.user), self.item(batch.positive), self.item(batch.negative)
        return {"bpr": bpr_loss_of_vectors(*vectors), "l2": self.settings.l2_weight * l2_loss(*vectors)}
