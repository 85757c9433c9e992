"""Item features that a preset asks for, compared with those that a dataset has.

Features are made when a dataset is prepared, so a preset cannot choose them. It can only say in its section `features`
which ones its numbers are for. Other features are allowed, because the encoder or a column of the source may not be
available, but they are never silent: `run.py` prints the difference, and the table has it as a footnote.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hellm_recbole.config.model_layers import FEATURES, read_preset
from hellm_recbole.errors import SettingsError
from hellm_recbole.identity.parts import FeatureOrigin

TEXT = "text"
_KEYS = {"encoder", "pooling", "columns"}


@dataclass(frozen=True)
class WantedFeatures:
    """Features of one modality that a preset asks for.

    Attributes:
        encoder: name of the encoder; its owner on a hub does not matter.
        pooling: pooling of the token states; None for pictures.
        columns: text columns in their order; empty for pictures.
    """

    encoder: str
    pooling: str | None = None
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _describe(self.encoder, self.pooling, self.columns)

    def are_met(self, origin: FeatureOrigin) -> bool:
        """Return whether features of this origin are those asked for."""
        encoder = origin["encoder"]
        return (
            encoder is not None
            and encoder.rpartition("/")[2] == self.encoder.rpartition("/")[2]
            and (origin["pooling"], tuple(origin["columns"])) == (self.pooling, self.columns)
        )


def read_wanted_features(preset: str) -> dict[str, WantedFeatures]:
    """Read the section `features` of a preset: modality -> features; empty for a preset without it.

    Raises:
        SettingsError: the preset is unknown, or the section has a wrong entry.
    """
    section = read_preset(preset).get(FEATURES) or {}
    return {modality: _parse_wanted(preset, modality, values) for modality, values in section.items()}


def _parse_wanted(preset: str, modality: str, values: Any) -> WantedFeatures:
    """Check one entry of the section `features`.

    Raises:
        SettingsError: it has an unknown key, or lacks the encoder.
    """
    if not isinstance(values, dict) or not values.keys() <= _KEYS or not isinstance(values.get("encoder"), str):
        raise SettingsError(
            f"preset/{preset}.yaml, {FEATURES}: {modality} must have an encoder, and may have pooling and columns"
        )
    return WantedFeatures(values["encoder"], values.get("pooling"), tuple(values.get("columns") or ()))


def describe_other_features(
    preset: str, wanted: Mapping[str, WantedFeatures], origins: Mapping[str, FeatureOrigin]
) -> str | None:
    """Describe in one sentence which features are not those that a preset asks for; None if all are.

    Args:
        preset: name of the preset.
        wanted: modality -> features that it asks for.
        origins: modality -> origin of the features that there are.
    """
    parts = []
    for modality, features in wanted.items():
        origin = origins.get(modality)
        if origin is not None and features.are_met(origin):
            continue
        found = "there are none" if origin is None else f"these are of {_describe_origin(origin)}"
        parts.append(f"{modality} features of {features} ({found})")
    return f"preset {preset} asks for {' and '.join(parts)}" if parts else None


def suggest_preparation(
    dataset: str,
    wanted: Mapping[str, WantedFeatures],
    origins: Mapping[str, FeatureOrigin],
    item_columns: Collection[str],
) -> str:
    """Suggest a command that prepares a dataset with text features as near as possible to those that a preset wants.

    Args:
        dataset: name of the dataset.
        wanted: modality -> features that the preset asks for.
        origins: modality -> origin of the features that there are.
        item_columns: columns of the dataset's table of items.

    Returns:
        A clause that names the command; "" if the preset asks for no text features, if the items have none of the
        columns, or if the command would make the features that there are.
    """
    if (text := wanted.get(TEXT)) is None:
        return ""
    kept = tuple(column for column in text.columns if column in item_columns)
    origin = origins.get(TEXT)
    if not kept or (origin is not None and replace(text, columns=kept).are_met(origin)):
        return ""
    goal = "" if kept == text.columns else f" of {', '.join(kept)}, the only ones of these columns that the items have"
    pooling = "" if text.pooling is None else f" --pooling {text.pooling}"
    columns = " ".join(map(shlex.quote, kept))
    command = f"hellm-recbole prepare {shlex.quote(dataset)} --text {columns} --encoder {text.encoder}{pooling} --fresh"
    return f"to get text features{goal}, run {command}"


def _describe_origin(origin: FeatureOrigin) -> str:
    """Describe the origin of features in words."""
    if origin["encoder"] is None:
        return "an unknown encoder"
    return _describe(origin["encoder"], origin["pooling"], tuple(origin["columns"]))


def _describe(encoder: str, pooling: str | None, columns: tuple[str, ...]) -> str:
    """Describe an encoder, the pooling and the columns.

    >>> _describe("bert-base-uncased", "cls", ("title", "brand")), _describe("clip", None, ())
    ('bert-base-uncased with pooling cls on title, brand', 'clip')
    """
    how = "" if pooling is None else f" with pooling {pooling}"
    return f"{encoder}{how}{' on ' if columns else ''}{', '.join(columns)}"
