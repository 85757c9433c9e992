"""Which of a dataset's modalities a model reads, and what models make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from hellm_recbole.errors import ModelError
from hellm_recbole.types import FloatArray


def choose_modalities(
    model: str, wanted: Sequence[str] | None, features: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """The features a model reads, in name order.

    Args:
        model: its name, for messages.
        wanted: setting `modalities`; None takes all there are.
        features: those of the dataset.

    Raises:
        ModelError: there is none, or one that is wanted is missing.
    """
    present = ", ".join(sorted(features)) or "none"
    names = sorted(features) if wanted is None else list(dict.fromkeys(wanted))
    if not names:
        raise ModelError(
            f"{model} needs item features and was given no modality (the dataset has: {present}); prepare the dataset "
            "with text or <modality>_feat.npy, or name them in the setting modalities"
        )
    missing = [name for name in names if name not in features]
    if missing:
        raise ModelError(
            f"{model}: the dataset has no modality {missing[0]!r} (it has: {present}); "
            "change the setting modalities or prepare the dataset with it"
        )
    return {name: features[name] for name in sorted(names)}


def build_feature_tables(features: Mapping[str, FloatArray]) -> nn.ModuleDict:
    """A trainable table of each modality, [I + 1, D_m], that starts as its features."""
    tables = {
        name: nn.Embedding.from_pretrained(torch.from_numpy(np.array(matrix)), freeze=False, padding_idx=0)
        for name, matrix in features.items()
    }
    return nn.ModuleDict(tables)


def build_feature_maps(features: Mapping[str, FloatArray], emb_dim: int, *, bias: bool = True) -> nn.ModuleDict:
    """A map of each modality, D_m -> D, with torch's initial law."""
    return nn.ModuleDict({name: nn.Linear(matrix.shape[1], emb_dim, bias) for name, matrix in features.items()})
