"""AdjustedBPR: matrix factorization with BPR whose scores are adjusted by the popularity of items while it is trained.

- Score in training: `x_u . y_i + w log(1 + n_i)`, where n_i is the number of training interactions of item i.
- Score in ranking: `x_u . y_i`, so that the embeddings explain what popularity does not.
- Loss: BPR (Rendle et al., UAI 2009) of these scores plus `lambda ||.||^2` on the rows of the batch.

The adjustment is that of Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, with w in place of tau,
and of a pairwise loss instead of the softmax.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.models.losses import bpr_loss, l2_loss
from hellm_recbole.types import Encoded, PairBatch, QueryBatch, TrainData


class AdjustedBPRSettings(Settings):
    """Hyper-parameters of AdjustedBPR.

    Attributes:
        emb_dim: D, width of the embeddings.
        popularity_strength: w, strength of the adjustment; 0 is plain BPR.
        l2_weight: lambda, weight of the L2 penalty.
        init_std: standard deviation of the normal initial embeddings.
    """

    emb_dim: int = Field(ge=1)
    popularity_strength: float = Field(ge=0)
    l2_weight: float = Field(ge=0)
    init_std: float = Field(gt=0)


class AdjustedBPR(nn.Module):
    """AdjustedBPR: two embedding tables and the popularity of items."""

    max_history = 0  # `query` reads no history

    log_popularity: Tensor  # [I + 1]

    def __init__(self, settings: AdjustedBPRSettings, n_users: int, log_popularity: Tensor) -> None:
        super().__init__()
        self.settings = settings
        self.user = nn.Embedding(n_users + 1, settings.emb_dim)
        self.item = nn.Embedding(len(log_popularity), settings.emb_dim)
        self.register_buffer("log_popularity", log_popularity, persistent=False)
        nn.init.normal_(self.user.weight, std=settings.init_std)
        nn.init.normal_(self.item.weight, std=settings.init_std)

    @classmethod
    def build(cls, settings: AdjustedBPRSettings, data: TrainData) -> AdjustedBPR:
        """Build a model with the popularity of items in the training part."""
        counts = np.bincount(data.history.items, minlength=data.n_items + 1)
        return cls(settings, data.n_users, torch.log1p(torch.from_numpy(counts).float()))

    def encode(self) -> Encoded:
        """Return the embeddings, without the adjustment."""
        return Encoded(items=self.item.weight, users=self.user.weight)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Return the [B, D] user vectors."""
        return encoded.select_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute the BPR of the adjusted scores and the L2 penalty."""
        user, positive, negative = self.user(batch.user), self.item(batch.positive), self.item(batch.negative)
        scores = [(user * items).sum(dim=1) for items in (positive, negative)]  # [B] each
        strength = self.settings.popularity_strength
        adjusted = [
            score + strength * self.log_popularity[ids]
            for score, ids in zip(scores, (batch.positive, batch.negative), strict=True)
        ]
        return {
            "bpr": bpr_loss(*adjusted),
            "l2": self.settings.l2_weight * l2_loss(user, positive, negative),
        }
