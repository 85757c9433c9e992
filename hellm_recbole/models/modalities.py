"""Choose the modalities that a model reads, and build trainable modules from their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from hellm_recbole.errors import ModelError
from hellm_recbole.types import FloatArray


def choose_modalities(
    model: str, chosen: Sequence[str] | None, features: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Choose the features that a model reads, in the order of their names.

    Args:
        model: name of the model, for messages.
        chosen: value of the setting `modalities`; None takes all modalities.
        features: modality -> features of the dataset.

    Raises:
        ModelError: there is no modality, or a chosen one is missing.
    """
    present = ", ".join(sorted(features)) or "none"
    names = sorted(features) if chosen is None else list(dict.fromkeys(chosen))
    if not names:
        raise ModelError(
            f"{model} needs item features, but has no modality (the dataset has: {present}). Prepare the dataset "
            "with text or <modality>_feat.npy, or name its modalities in the setting modalities"
        )
    missing = [name for name in names if name not in features]
    if missing:
        raise ModelError(
            f"{model}: the dataset has no modality {missing[0]!r} (it has: {present}); "
            "change the setting modalities or prepare the dataset with it"
        )
    return {name: features[name] for name in sorted(names)}


def build_feature_tables(features: Mapping[str, FloatArray]) -> nn.ModuleDict:
    """Build a trainable [I + 1, D_m] table for each modality; it starts with the features of the modality."""
    tables = {
        name: nn.Embedding.from_pretrained(torch.from_numpy(np.array(matrix)), freeze=False, padding_idx=0)
        for name, matrix in features.items()
    }
    return nn.ModuleDict(tables)


def build_feature_maps(features: Mapping[str, FloatArray], emb_dim: int, *, bias: bool = True) -> nn.ModuleDict:
    """Build a linear map D_m -> D for each modality, with torch's own initialisation."""
    return nn.ModuleDict({name: nn.Linear(matrix.shape[1], emb_dim, bias) for name, matrix in features.items()})
