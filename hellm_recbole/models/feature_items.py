"""Item vectors that are computed from item features, for the input and the head of a sequence model.

- `whiten_features` joins the features of all modalities: rows of each modality centred and scaled to unit length, side
  by side, rotated to their principal axes, the axis with variance lambda multiplied by `lambda ** -1/4`
  (half-whitening), rows scaled to length sqrt(F). Sentence encoders put most of their variance into few directions;
  with the power -1/2 all directions would count alike, noise included.
- `FeatureItems` maps them to item vectors: `normalise(W_2 LeakyReLU(W_1 (g * f) + b_1) + b_2 + P e + d)`, with f the
  joined features, g a learned gain of each of their columns, e a frozen pretrained embedding (by choice) and d an item
  embedding that starts at zero (by choice).

`missing_features: masked`: an item without a text or picture enters neither mean nor axes of that modality, and its
part of f is zero. The network gives all items without any feature the same vector, apart from P e and d.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.models.modalities import ItemFeatures, MissingFeatures, read_item_features
from hellm_recbole.types import FloatArray, TrainData

Whitening = Literal["none", "half"]
_AXIS_POWER = {"half": 0.25}  # half of the power 1/2 that gives every axis the same variance


class FeatureItemSettings(Settings):
    """Settings of item vectors that are computed from features.

    Attributes:
        modalities: modalities to read; null uses all modalities of the dataset.
        missing_features: how items without a text or picture are treated: `filled`, like any other item, with the fill
            value of the data; `masked`, left out of the modality.
        whitening: `half`, each principal axis of the joined features is divided by the fourth root of its variance;
            `none`, the joined features stay as they are.
        whitening_floor: smallest variance of an axis, as a fraction of the largest one.
        feature_hidden: hidden width of the network that maps features to item vectors.
        id_embedding: whether an item has an embedding of its own, which starts at zero, beside its features.
        id_dropout: dropout probability of this embedding.
    """

    modalities: tuple[str, ...] | None
    missing_features: MissingFeatures
    whitening: Whitening
    whitening_floor: float = Field(gt=0, le=1)
    feature_hidden: int = Field(ge=1)
    id_embedding: bool
    id_dropout: float = Field(ge=0, lt=1)


def whiten_features(features: ItemFeatures, whitening: Whitening, floor: float) -> FloatArray:
    """Join the features of all modalities, and whiten them.

    Sums are in double precision, the sign of each axis is fixed (its entry of largest size is positive), and BLAS uses
    one thread. So the number of threads of a run changes nothing; another processor or library can change the rounding
    of the eigenvectors.

    Args:
        features: features of each modality, and which items take part in it.
        whitening: `half` or `none`.
        floor: smallest variance of an axis, as a fraction of the largest one.

    Returns:
        [I + 1, F] joined features, F the sum of the widths of the modalities. The mean square of each row is 1. Rows of
        items without features are zero, and row 0 is.
    """
    joined, weighted = _join_modalities(features)
    if whitening != "none":
        with threadpool_limits(1, user_api="blas"):
            variance, axes = np.linalg.eigh(weighted.T @ weighted)  # ascending
            signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))  # [1, F]
            scale = np.maximum(variance, floor * variance[-1]) ** -_AXIS_POWER[whitening]
            joined = joined @ (axes * signs * scale)[:, ::-1]  # the axis with the largest variance comes first
    scaled: FloatArray = (_normalize_rows(joined) * joined.shape[1] ** 0.5).astype(np.float32)
    return scaled


def _join_modalities(features: ItemFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale the rows of each modality, and put the modalities side by side.

    Returns:
        [I + 1, F] float64 rows; parts of items that do not take part in a modality are zero. The same rows, each part
        divided by the root of the number of items that take part: their product with themselves is the covariance.
    """
    parts, weighted = [], []
    for name, matrix in features.values.items():
        takes_part = np.arange(len(matrix)) > 0
        if name in features.covered:
            takes_part = features.covered[name]
        part = np.zeros(matrix.shape)
        rows = matrix[takes_part].astype(np.float64)
        part[takes_part] = _normalize_rows(rows - rows.mean(axis=0))
        parts.append(part)
        weighted.append(part / max(len(rows), 1) ** 0.5)
    return np.concatenate(parts, axis=1), np.concatenate(weighted, axis=1)


def _normalize_rows(rows: np.ndarray) -> np.ndarray:
    """Scale rows to unit length; rows of zeros stay zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    normalized: np.ndarray = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return normalized


class FeatureItems(nn.Module):
    """Item vectors: a network of the features, plus by choice a pretrained and an own embedding.

    Args:
        features: [I + 1, F] joined features f, from `whiten_features`; row 0 is zero.
        width: D, width of an item vector.
        hidden: hidden width of the network.
        pretrained: [I + 1, D_e] frozen embeddings e, which a trained matrix P maps to the width; None for none.
        id_embedding: whether items have embeddings d of their own, which start at zero.
        id_dropout: dropout probability of d.
        unit: whether vectors have length 1.
    """

    features: Tensor
    pretrained: Tensor | None

    def __init__(
        self,
        features: Tensor,
        width: int,
        hidden: int,
        *,
        pretrained: Tensor | None = None,
        id_embedding: bool = False,
        id_dropout: float = 0.0,
        unit: bool = True,
    ) -> None:
        super().__init__()
        n_rows, n_columns = features.shape
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("pretrained", pretrained, persistent=False)
        self.gain = nn.Parameter(torch.ones(n_columns))
        self.hidden = nn.Linear(n_columns, hidden)
        self.output = nn.Linear(hidden, width)
        self.projection = None if pretrained is None else nn.Linear(pretrained.shape[1], width, bias=False)
        self.item = nn.Embedding(n_rows, width, padding_idx=0) if id_embedding else None
        if self.item is not None:
            nn.init.zeros_(self.item.weight)
        self.id_dropout, self.unit = id_dropout, unit

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Compute the vectors of some items, [N] -> [N, D], or of all, [I + 1, D]. Those of padding are zero.

        Only the given items are computed. Those that occur several times are computed several times.
        """
        if items is None:
            items = torch.arange(len(self.features), device=self.features.device)
        # The gain is multiplied into the weights, which has the same product and needs no gradient of [N, F] inputs.
        hidden = F.linear(self.features[items], self.hidden.weight * self.gain, self.hidden.bias)
        vectors = self.output(F.leaky_relu(hidden))
        if self.projection is not None and self.pretrained is not None:
            vectors = vectors + self.projection(self.pretrained[items])
        if self.item is not None:
            vectors = vectors + F.dropout(self.item(items), self.id_dropout, self.training)
        return (F.normalize(vectors, dim=1) if self.unit else vectors).masked_fill((items == 0).unsqueeze(1), 0.0)


def build_feature_items(
    model: str,
    settings: FeatureItemSettings,
    data: TrainData,
    width: int,
    pretrained: Tensor | None = None,
    *,
    unit: bool = True,
) -> FeatureItems:
    """Build the item vectors of a model from the features in `data`.

    Args:
        model: name of the model, for messages.
        settings: which features are read, and how.
        data: training part with the features.
        width: D, width of an item vector.
        pretrained: [I + 1, D_e] frozen embeddings that are added after a linear map; None for none.
        unit: whether vectors have length 1.

    Raises:
        ModelError: there is no modality, a chosen modality is missing, or its mask is.
    """
    features = read_item_features(model, settings.modalities, settings.missing_features, data)
    joined = whiten_features(features, settings.whitening, settings.whitening_floor)
    return FeatureItems(
        torch.from_numpy(joined),
        width,
        settings.feature_hidden,
        pretrained=pretrained,
        id_embedding=settings.id_embedding,
        id_dropout=settings.id_dropout,
        unit=unit,
    )
