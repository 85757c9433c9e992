"""Choose the modalities that a model reads, build trainable modules from their features, and leave missing ones out.

The data fills the features of an item without a text or picture with a value, such as the mean of the others. Models
have the setting `missing_features`:

- `filled`: a filled row counts like any other, as in all public code.
- `masked`: the item takes no part in the modality. Its features are set to zero before the model sees them, so that no
  number depends on the fill value, and the model leaves the item out where a zero would still count. Each model's
  docstring says where. If all items have features, both settings give the same numbers bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from hellm_recbole.errors import ModelError
from hellm_recbole.types import BoolArray, FloatArray, TrainData

MissingFeatures = Literal["filled", "masked"]


@dataclass(frozen=True)
class ItemFeatures:
    """The features that a model reads.

    Attributes:
        values: modality -> [I + 1, D_m] features; rows of items that take no part are zero.
        covered: modality -> [I + 1] whether an item takes part, only for modalities in which some item does not. Entry
            0 is False.
    """

    values: Mapping[str, FloatArray]
    covered: Mapping[str, BoolArray]

    def get_covered_items(self, name: str) -> BoolArray | None:
        """Return [I] whether each item takes part in a modality; None if all do."""
        return self.covered[name][1:] if name in self.covered else None

    def find_described_items(self) -> BoolArray | None:
        """Find [I + 1] whether each item takes part in at least one modality; None if all do."""
        if len(self.covered) < len(self.values):
            return None  # there is a modality in which all items take part
        described: BoolArray = np.any(np.stack(list(self.covered.values())), axis=0)
        return None if described[1:].all() else described


def read_item_features(
    model: str, modalities: Sequence[str] | None, missing_features: MissingFeatures, data: TrainData
) -> ItemFeatures:
    """Read the features of the chosen modalities, in the order of their names.

    Args:
        model: name of the model, for messages.
        modalities: value of the setting `modalities`; None takes all modalities.
        missing_features: value of the setting of this name.
        data: training part, with the features and the masks of the items that have them.

    Raises:
        ModelError: there is no modality, a chosen one is missing, or features are to be masked and a mask is missing.
    """
    features = choose_modalities(model, modalities, data.features)
    if missing_features == "filled":
        return ItemFeatures(features, {})
    for name in features:
        if name not in data.covered:
            raise ModelError(
                f"{model}: missing_features is masked, but the dataset does not say which items lack {name!r}; "
                "set missing_features to filled, or run the model on a prepared dataset with benchmarks/run.py"
            )
    covered = {name: data.covered[name] for name in features if not data.covered[name][1:].all()}
    values = {
        name: np.where(covered[name][:, None], matrix, np.float32(0)) if name in covered else matrix
        for name, matrix in features.items()
    }
    return ItemFeatures(values, covered)


class Coverage(nn.Module):
    """Which items take part in each modality, as tensors; without effect for a modality in which all items do.

    Args:
        covered: modality -> [I + 1] mask, from `ItemFeatures.covered`.
    """

    def __init__(self, covered: Mapping[str, BoolArray]) -> None:
        super().__init__()
        for name, mask in covered.items():
            self.register_buffer(f"covered_{name}", torch.from_numpy(np.array(mask)), persistent=False)

    def get_mask(self, name: str) -> Tensor | None:
        """Return the [I + 1] mask of a modality; None if all items take part."""
        mask: Tensor | None = getattr(self, f"covered_{name}", None)
        return mask

    def clear_missing(self, name: str, vectors: Tensor) -> Tensor:
        """Set the vectors of items that take no part to zero, [I + 1, D] -> [I + 1, D]."""
        mask = self.get_mask(name)
        return vectors if mask is None else torch.where(mask.unsqueeze(1), vectors, 0.0)

    def select_rows(self, name: str, items: Sequence[Tensor]) -> Tensor | None:
        """Find the rows of a batch in which all given items take part in a modality.

        Args:
            name: name of the modality.
            items: one or more [B] tensors of item ids.

        Returns:
            [b] row numbers; None for all rows, if all items of the dataset take part.
        """
        mask = self.get_mask(name)
        if mask is None:
            return None
        return torch.stack([mask[ids] for ids in items]).all(dim=0).nonzero().squeeze(1)


def take_rows(tensor: Tensor, rows: Tensor | None) -> Tensor:
    """Take the given rows, [B, ...] -> [b, ...]; None takes all."""
    return tensor if rows is None else tensor.index_select(0, rows)


def sum_terms(terms: Sequence[Tensor], like: Tensor) -> Tensor:
    """Compute the sum of scalar terms; zero, with number type and device of `like`, if there is none."""
    return torch.stack(list(terms)).sum() if terms else like.new_zeros(())


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
