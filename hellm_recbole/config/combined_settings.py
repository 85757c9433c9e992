"""Settings of combined rows: their classes, and the layers that their values come from.

The layers are, in this order: `overall.yaml`; `combined.yaml`; a preset; the variant of `combined.yaml`; `--set`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from hellm_recbole.config.harness_settings import ClusterSettings, EvalSettings, LogSettings
from hellm_recbole.config.layers import VARIANTS, Resolved, merge_layers
from hellm_recbole.config.model_layers import read_preset
from hellm_recbole.config.request import Override
from hellm_recbole.config.row_names import CombinedKind, CombinedName
from hellm_recbole.config.settings import Settings, list_field_names
from hellm_recbole.config.yaml_files import find_properties, load_yaml

COMBINED_FILE = "combined.yaml"
Decay = Annotated[float, Field(gt=0, le=1)]
Weights = Annotated[tuple[Annotated[float, Field(ge=0, le=1e6)], ...], Field(min_length=1)]


class SelectionSettings(Settings):
    """Selection on the validation part.

    Attributes:
        valid_metric: metric that selects the weights, such as N@20.
    """

    valid_metric: str


class TransitionSettings(Settings):
    """One-step transitions of the training part.

    Attributes:
        transition_form: symmetric counts that one item follows the other, in either order; directed counts only steps
            from the earlier item to the later one.
        transition_decay: factor by which the weight of a history item falls with each step back; the last one has 1.
        prior_floor: constant that is added to the similarities of counts before the logarithm.
    """

    transition_form: Literal["symmetric", "directed"]
    transition_decay: Decay
    prior_floor: float = Field(gt=0, le=1)


class PriorSettings(TransitionSettings):
    """Priors that are added to the scores of a row, and the weights that are tried.

    Attributes:
        prior_modality: modality of the features of text-kNN.
        text_decay: see `transition_decay`, of text-kNN.
        item_knn_decay: see `transition_decay`, of ItemKNN.
        text_weights: weights of text-kNN to try; [0] leaves it out.
        item_knn_weights: weights of ItemKNN to try; [0] leaves it out.
        transition_weights: weights of the transitions to try; [0] leaves them out.
    """

    prior_modality: str
    text_decay: Decay
    item_knn_decay: Decay
    text_weights: Weights
    item_knn_weights: Weights
    transition_weights: Weights


class FusionSettings(Settings):
    """Weights of the rows of a fusion.

    Attributes:
        fusion_steps: number of equal steps between the weights 0 and 1; the weights of the rows add up to 1.
    """

    fusion_steps: int = Field(ge=1, le=1000)


KIND_SETTINGS: dict[CombinedKind, type[Settings]] = {
    "transitions": TransitionSettings,
    "priors": PriorSettings,
    "fusion": FusionSettings,
}
SHARED_SETTINGS: tuple[type[Settings], ...] = (SelectionSettings, EvalSettings, LogSettings, ClusterSettings)


def merge_combined_layers(name: CombinedName, preset: str, overrides: Sequence[Override]) -> Resolved:
    """Merge all layers of settings of a combined row. Each layer overrides the earlier ones.

    Args:
        name: name of the row.
        preset: name of the preset.
        overrides: values that win over all others; those of other rows are ignored.

    Raises:
        SettingsError: a file cannot be read, the preset is unknown, or both files set the same key.
    """
    known = {key for cls in (*SHARED_SETTINGS, KIND_SETTINGS[name.kind]) for key in list_field_names(cls)}
    files = {file: load_yaml(find_properties() / file) for file in ("overall.yaml", COMBINED_FILE)}
    variants = files[COMBINED_FILE].pop(VARIANTS)
    layers = {file: {key: value for key, value in values.items() if key in known} for file, values in files.items()}
    of_preset = (read_preset(preset).get("overall") or {}).items()
    resolved = merge_layers(layers.items()).override(
        {key: value for key, value in of_preset if key in known}, f"preset/{preset}.yaml"
    )
    if name.variant is not None:
        resolved = resolved.override(variants[name.variant], f"{COMBINED_FILE}, {VARIANTS}: {name.variant}")
    for one in overrides:
        if one.model == name.name or (one.model is None and one.key in known):
            resolved = resolved.override({one.key: one.value}, one.origin)
    return resolved
