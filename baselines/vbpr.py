"""VBPR: BPR with item content in addition to the item embedding.

He and McAuley, "VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback", AAAI 2016.

- Eq. 4 without biases: `score = gamma_u . gamma_i + theta_u . (E f_i)`. It is computed as one inner product of the user
  vector `[gamma_u ; theta_u]`, of width 2 D, and `q_i = [gamma_i ; W f_i + b]`.
- Eq. 6: BPR with an L2 penalty.

Deviations: `f_i` is the concatenation of all modalities (the paper has images only), W has a bias, and the user, item
and visual bias terms are left out. All three follow MMRec's VBPR, which multimodal papers compare with. The penalty is
the squared norm divided by the batch size (MMRec: the norm, not squared). By default, the feature rows of each modality
are scaled to unit length, so that no modality dominates the others; `normalize_features: false` keeps the raw features,
as MMRec does.

`missing_features: masked`: the features of a modality that an item lacks are zero, so that they add nothing to `W f_i`.
The bias b belongs to the content as a whole, not to a modality, so it is left out only for an item that lacks all
modalities: its content half is zero, and it is scored by its embedding alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.models.losses import bpr_loss_of_vectors, l2_loss
from hellm_recbole.models.modalities import MissingFeatures, read_item_features
from hellm_recbole.types import BoolArray, Encoded, PairBatch, QueryBatch, TrainData


class VBPRSettings(Settings):
    """Hyper-parameters of VBPR.

    Attributes:
        emb_dim: D, width of the collaborative half and of the content half.
        modalities: modalities to read; null uses all of the dataset but `text_...`.
        missing_features: how items without a text or picture are treated: `filled`, like any other item, with the fill
            value of the data; `masked`, left out of the modality.
        normalize_features: whether each feature row is scaled to unit length.
        l2_weight: weight of the L2 penalty.
    """

    emb_dim: int = Field(ge=1)
    modalities: tuple[str, ...] | None
    missing_features: MissingFeatures
    normalize_features: bool
    l2_weight: float = Field(ge=0)


class VBPR(nn.Module):
    """VBPR: user table [U + 1, 2 D], item table [I + 1, D], and content map D_f -> D of frozen features.

    Args:
        settings: hyper-parameters.
        n_users: U.
        features: [I + 1, D_m] features of each modality.
        described: [I + 1] whether an item has features in some modality; None if all have.
    """

    max_history = 0
    described: Tensor | None

    def __init__(
        self, settings: VBPRSettings, n_users: int, features: Sequence[Tensor], described: BoolArray | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        if settings.normalize_features:
            features = [F.normalize(matrix, dim=1) for matrix in features]
        self.register_buffer("features", torch.cat(list(features), dim=1), persistent=False)  # [I + 1, sum of D_m]
        self.features: Tensor
        self.register_buffer("described", None if described is None else torch.from_numpy(described), persistent=False)
        n_item_rows, width = self.features.shape
        self.user = nn.Embedding(n_users + 1, 2 * settings.emb_dim)
        self.item = nn.Embedding(n_item_rows, settings.emb_dim)
        self.content_map = nn.Linear(width, settings.emb_dim)
        nn.init.xavier_uniform_(self.user.weight)
        nn.init.xavier_uniform_(self.item.weight)
        nn.init.xavier_normal_(self.content_map.weight)
        nn.init.zeros_(self.content_map.bias)

    @classmethod
    def build(cls, settings: VBPRSettings, data: TrainData) -> VBPR:
        """Build a model from the chosen modalities of `data`, in the order of their names.

        Raises:
            ModelError: there is no modality, a chosen modality is missing, or its mask is.
        """
        features = read_item_features("VBPR", settings.modalities, settings.missing_features, data)
        matrices = [torch.from_numpy(np.asarray(matrix)) for matrix in features.values.values()]
        return cls(settings, data.n_users, matrices, features.find_described_items())

    def compute_item_vectors(self, item: Tensor) -> Tensor:
        """Compute the [B, 2 D] vectors q of [B] item ids."""
        content = self.content_map(self.features[item])
        if self.described is not None:
            content = torch.where(self.described[item].unsqueeze(1), content, 0.0)
        return torch.cat([self.item(item), content], dim=1)

    def encode(self) -> Encoded:
        """Compute the vectors of all users and items."""
        all_items = torch.arange(self.features.shape[0], device=self.features.device)
        return Encoded(items=self.compute_item_vectors(all_items), users=self.user.weight)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Return the [B, 2 D] user vectors."""
        return encoded.select_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute the BPR and the L2 penalty on the batch's vectors; only the items of the batch are projected."""
        user = self.user(batch.user)
        positive, negative = self.compute_item_vectors(batch.positive), self.compute_item_vectors(batch.negative)
        return {
            "bpr": bpr_loss_of_vectors(user, positive, negative),
            "l2": self.settings.l2_weight * l2_loss(user, positive, negative),
        }
