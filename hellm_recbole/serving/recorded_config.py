"""The run config of a finished run, restored from its record alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hellm_recbole.config.request import Override
from hellm_recbole.config.row_names import parse_combined_name
from hellm_recbole.errors import HellmError, ResultError
from hellm_recbole.experiments.combined_config import CombinedRunConfig, build_combined_config
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, read_result
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.identity.compare import complete_settings
from hellm_recbole.models.base import ModelSpec


def restore_config(result: RunResult, registry: Mapping[str, ModelSpec]) -> RunConfig:
    """Restore the run config of a finished run: the recorded value of each setting wins over all settings files.

    A setting that the record lacks, because its version had a constant in its place, has the value of that constant.

    Args:
        result: result of the run, read from its folder.
        registry: name -> entry of each of our models.

    Raises:
        ResultError: another version of this project made the run, and this one has no such model or setting; or a run
            that it combines is missing.
        MissingDependency: RecBole is not installed, and the run has one of its models.
    """
    assert result.path is not None
    try:
        config = _restore(result, registry, {key: entry["value"] for key, entry in result.settings.items()})
        added = complete_settings({}, [key for key in config.resolved.values if key not in result.settings])
        if added:
            recorded = {key: entry["value"] for key, entry in result.settings.items()}
            config = _restore(result, registry, {**recorded, **added})
    except ResultError:
        raise
    except HellmError as error:
        raise type(error)(
            f"{result.path} was made by version {result.versions['hellm_recbole']} and cannot be loaded: {error}"
        ) from error
    if (config.source, config.label) != (result.source, result.label):
        raise ResultError(
            f"{result.path} was made by version {result.versions['hellm_recbole']} with the {result.label} of "
            f"{result.source}, and this version has another model of this name; run it again with --fresh"
        )
    return config


def _restore(result: RunResult, registry: Mapping[str, ModelSpec], values: Mapping[str, Any]) -> RunConfig:
    """Build the run config with the given values of its settings."""
    overrides = [
        Override(result.model, key, value, result.settings[key]["origin"] if key in result.settings else "the record")
        for key, value in values.items()
    ]
    if result.combination is None:
        config = resolve_run(result.model, result.dataset, registry, result.preset, overrides)
        return replace(config, search=result.search)
    return _restore_combined(result, registry, overrides)


def _restore_combined(
    result: RunResult, registry: Mapping[str, ModelSpec], overrides: list[Override]
) -> CombinedRunConfig:
    """Build the run config of a combined row, and before it those of the rows that it combines.

    Raises:
        ResultError: the record of such a row is missing, or the name of the row is not one of a combined row.
    """
    assert result.path is not None
    assert result.combination is not None
    name = parse_combined_name(result.model)
    if name is None:
        raise ResultError(f"{result.path}: {result.model} is not the name of a combined row; run it again with --fresh")
    rows = [
        restore_config(_read_row(result.path.parents[2], label, result), registry)
        for label in result.combination["rows"]
    ]
    return build_combined_config(name, rows, result.preset, overrides)


def _read_row(folder: Path, label: str, result: RunResult) -> RunResult:
    """Read the result of a row that another one combines.

    Args:
        folder: folder of the runs of the dataset.
        label: name of the row and of its folder.
        result: result of the combined row.

    Raises:
        ResultError: it cannot be read.
    """
    path = folder / label / str(result.seed) / RECORD_FILE
    if not path.exists():
        raise ResultError(f"{result.path} combines the scores of {label}, but there is no {path}; run {label} again")
    return read_result(path)
