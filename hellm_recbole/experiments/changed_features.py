"""Rows with changed features: `<Row>-shuffled-text`, `<Row>-zero-image`, `<Row>-noise`.

Such a row is its model with the settings of the model, on item features that say less or nothing about the items. What
it loses against the row with true features is what the modality brings. The features are changed before the run gets
its data, so the digests in the record are those of the changed features.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hellm_recbole.config.changed_names import Change, ChangedName, parse_changed_name
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.experiments.run_config import RunConfig, TrainedRunConfig
from hellm_recbole.identity.parts import UNKNOWN_ORIGIN, FeatureOrigin
from hellm_recbole.types import BoolArray, FloatArray

SETTING = "changed_features"
ORIGIN = "name of the row"


def change_config(name: ChangedName, config: RunConfig) -> TrainedRunConfig:
    """Return the run config of a row with changed features.

    Args:
        name: name of the row, taken apart.
        config: run config of the row with true features.

    Raises:
        ModelError: the row reads no features, or reads something else that was made from them.
    """
    if not isinstance(config, TrainedRunConfig) or not config.choose_features({"any modality": None}):
        raise ModelError(f"{name.name}: {config.model} reads no item features, so that there is nothing to change")
    if config.reads_texts or config.pretrained_models:
        what = "item texts" if config.reads_texts else f"embeddings of {', '.join(config.pretrained_models)}"
        raise ModelError(
            f"{name.name}: {config.model} also reads {what}, which would tell it what the changed features hide; name "
            "a row that reads item features only"
        )
    return replace(config, model=name.name, resolved=config.resolved.override({SETTING: name.what}, ORIGIN))


def refuse_own_settings(name: ChangedName, overrides: Iterable[Override]) -> None:
    """Refuse settings for a row with changed features alone: it has those of the row with true features.

    Args:
        name: name of the row, taken apart.
        overrides: values from the command line.

    Raises:
        SettingsError: there are such settings.
    """
    for override in overrides:
        if override.model == name.name:
            raise SettingsError(
                f"{override.origin}: {name.name} has the settings of {name.row}, so that only the features differ; "
                f"name {name.row}"
            )


def find_change(config: RunConfig) -> ChangedName | None:
    """Return the change of the features of a run; None for a run with true features."""
    return parse_changed_name(config.model) if SETTING in config.resolved.values else None


def find_recorded_change(result: RunResult) -> ChangedName | None:
    """Return the change of the features of a finished run; None for a run with true features."""
    return parse_changed_name(result.model) if SETTING in result.settings else None


def refuse_missing_modality(config: RunConfig, features: Mapping[str, Any], dataset: str) -> None:
    """Refuse a change of a modality that the dataset lacks, or that the row does not read.

    Args:
        config: run config of any row.
        features: modality -> anything, for all modalities of the dataset.
        dataset: name of the dataset.

    Raises:
        ModelError: there is nothing to change.
    """
    change = find_change(config)
    if change is None or change.modality is None or change.modality in config.choose_features(features):
        return
    if change.modality in features:
        read = ", ".join(sorted(config.choose_features(features)))
        raise ModelError(f"{config.model}: {change.row} does not read the modality {change.modality}; it reads {read}")
    known = ", ".join(sorted(features)) or "none"
    raise ModelError(f"{config.model}: {dataset} has no modality {change.modality}; it has {known}")


def refuse_changed(configs: Iterable[RunConfig], command: str) -> None:
    """Refuse rows with changed features where a command uses the true ones.

    Args:
        configs: run configs.
        command: the command or option, for the message.

    Raises:
        ModelError: one of the rows has changed features.
    """
    for config in configs:
        if (change := find_change(config)) is not None:
            raise ModelError(
                f"{command} cannot take {config.model}, whose features are changed; it has the settings of "
                f"{change.row}, so name {change.row}"
            )


def change_split(config: RunConfig, split: Split, seed: int) -> Split:
    """Return the split that a run reads: with changed features if its row says so, otherwise as it is.

    Args:
        config: run config of any row.
        split: split of the dataset, with true features.
        seed: random seed of the run, which chooses permutation and noise.

    Raises:
        ModelError: the dataset lacks the modality, or the row does not read it.
    """
    change = find_change(config)
    if change is None:
        return split
    refuse_missing_modality(config, split.features, split.dataset)
    return _change_modalities(change, sorted(config.choose_features(split.features)), split, seed)


def change_recorded_split(result: RunResult, split: Split) -> Split:
    """Return the split that a finished run has read: with changed features if its row says so, otherwise as it is.

    Args:
        result: record of the run.
        split: split of the dataset, with true features.
    """
    change = find_recorded_change(result)
    if change is None or result.identity is None:
        return split
    return _change_modalities(change, sorted(result.identity["features"]), split, result.seed)


def _change_modalities(change: ChangedName, read: Iterable[str], split: Split, seed: int) -> Split:
    """Return a split with changed features.

    Args:
        change: what is changed.
        read: modalities that the row reads; all of them are changed if `change` names none.
        split: split with true features.
        seed: random seed of the run.
    """
    features, origins = dict(split.features), dict(split.feature_origins)
    for name in read if change.modality is None else (change.modality,):
        covered = split.covered.get(name, np.arange(split.n_items + 1) > 0)
        generator = np.random.default_rng([seed, zlib.crc32(f"{change.change} {name}".encode())])
        features[name] = change_matrix(split.features[name], covered, change.change, generator)
        origins[name] = _mark_origin(split.feature_origins.get(name, UNKNOWN_ORIGIN), change.change)
    return replace(split, features=features, feature_origins=origins)


def change_matrix(values: FloatArray, covered: BoolArray, change: Change, generator: np.random.Generator) -> FloatArray:
    """Change the features of a modality.

    Items without features of their own have a value in their place. They keep it where the others are shuffled or
    noise, so that an item has features of its own if and only if it had them before.

    Args:
        values: [I + 1, D_m] float32 features.
        covered: [I + 1] whether an item has features of its own.
        change: `shuffled` permutes the rows of the items with features of their own. `noise` draws their numbers from a
            normal distribution with mean and standard deviation of the column over these items. `zero` sets the rows
            of all items to zero.
        generator: random generator.

    Returns:
        [I + 1, D_m] float32 changed features.

    >>> values = np.array([[0, 0], [1, 2], [3, 4], [9, 9]], dtype=np.float32)
    >>> change_matrix(values, np.array([False, True, True, False]), "zero", np.random.default_rng(1)).tolist()
    [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    if change == "zero":
        return np.zeros_like(values)
    changed, own = values.copy(), values[covered]
    if change == "shuffled":
        changed[covered] = own[generator.permutation(len(own))]
    else:
        mean, sd = own.mean(axis=0, dtype=np.float64), own.std(axis=0, dtype=np.float64)
        changed[covered] = generator.normal(mean, sd, size=own.shape)
    return changed


def _mark_origin(origin: FeatureOrigin, change: Change) -> FeatureOrigin:
    """Say in the origin of features that they were changed."""
    marked = origin.copy()
    marked["encoder"] = f"{change}, before: {origin['encoder'] or 'unknown'}"
    return marked
