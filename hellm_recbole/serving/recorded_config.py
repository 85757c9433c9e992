"""The run config of a finished run, restored from its record alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hellm_recbole.config.request import Override
from hellm_recbole.config.row_names import parse_combined_name
from hellm_recbole.errors import HellmError, ResultError, SettingsError
from hellm_recbole.experiments.changed_features import SETTING, change_config, find_recorded_change
from hellm_recbole.experiments.combined_config import CombinedRunConfig, build_combined_config
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, SettingValue, read_result
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.identity.compare import complete_settings
from hellm_recbole.llm.settings import label_model
from hellm_recbole.models.base import ModelSpec
from hellm_recbole.plugins.user_models import UNVERSIONED


def move_language_model(result: RunResult, llm: str) -> RunResult:
    """Return the record of a run whose language model is in another place now. Its bytes are compared when it loads.

    Args:
        result: record of the run.
        llm: folder, file or id of the language model.

    Raises:
        SettingsError: the run has no language model, or one of another name.
    """
    if "llm" not in result.settings:
        if result.combination is not None:
            return result  # those that it combines have one, perhaps
        raise SettingsError(f"{result.label} has no language model; leave --llm out")
    values = {key: entry["value"] for key, entry in result.settings.items()}
    name = label_model(llm, values["llm_layers"], values["quantization"])
    if name != result.backbone:
        raise SettingsError(
            f"the language model of {result.label} is named {result.backbone}, and {llm} would be {name}; name a "
            "folder or a file with the same name as the recorded one"
        )
    moved = SettingValue(value=llm, origin=f"--llm {llm}")
    return replace(result, settings={**result.settings, "llm": moved})


def restore_config(result: RunResult, registry: Mapping[str, ModelSpec], llm: str | None = None) -> RunConfig:
    """Restore the run config of a finished run: the recorded value of each setting wins over all settings files.

    A setting that the record lacks, because its version had a constant in its place, has the value of that constant.

    Args:
        result: result of the run, read from its folder.
        registry: name -> entry of each of our models.
        llm: where the language models of the runs that it combines are now; None takes the recorded places.

    Raises:
        ResultError: another version of this project made the run, and this one has no such model or setting; or a run
            that it combines is missing; or its model is a file of a properties folder that is not named.
        MissingDependency: RecBole is not installed, and the run has one of its models.
    """
    assert result.path is not None
    _refuse_unknown_file(result, registry)
    try:
        config = _restore(result, registry, {key: entry["value"] for key, entry in result.settings.items()}, llm)
        added = complete_settings({}, [key for key in config.resolved.values if key not in result.settings])
        if added:
            recorded = {key: entry["value"] for key, entry in result.settings.items()}
            config = _restore(result, registry, {**recorded, **added}, llm)
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


def _refuse_unknown_file(result: RunResult, registry: Mapping[str, ModelSpec]) -> None:
    """Refuse a run whose model is a file of a properties folder that is not used now.

    Raises:
        ResultError: it is.
    """
    for plugin in result.plugins:
        if (plugin["kind"], plugin["version"]) == ("model", UNVERSIONED) and plugin["name"] not in registry:
            raise ResultError(
                f"the model {plugin['name']} of {result.path} is in the file {plugin['package']} of a properties "
                "folder; name the folder with use_properties(FOLDER) or --properties FOLDER"
            )


def _restore(
    result: RunResult, registry: Mapping[str, ModelSpec], values: Mapping[str, Any], llm: str | None
) -> RunConfig:
    """Build the run config with the given values of its settings."""
    change = find_recorded_change(result)
    model = result.model if change is None else change.row
    overrides = [
        Override(model, key, value, result.settings[key]["origin"] if key in result.settings else "the record")
        for key, value in values.items()
        if key != SETTING
    ]
    if result.combination is None:
        config = resolve_run(model, result.dataset, registry, result.preset, overrides)
        return replace(config if change is None else change_config(change, config), search=result.search)
    return _restore_combined(result, registry, overrides, llm)


def _restore_combined(
    result: RunResult, registry: Mapping[str, ModelSpec], overrides: list[Override], llm: str | None
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
    found = [_read_row(result.path.parents[2], label, result) for label in result.combination["rows"]]
    if llm is not None:
        found = [move_language_model(row, llm) if row.backbone is not None else row for row in found]
    rows = [restore_config(row, registry, llm) for row in found]
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
