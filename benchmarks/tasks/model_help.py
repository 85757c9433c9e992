"""Print the settings of a model: as a table, or as a JSON schema for editors and other programs."""

from __future__ import annotations

import json

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.tasks.prepared_data import refuse_missing_data
from hellm_recbole.config.request import RunRequest
from hellm_recbole.data.known_datasets import list_datasets
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.settings_help import build_settings_schema, describe_model_settings

VALUE_WIDTH = 20  # so that the table fits into 80 columns


def print_model_help(name: str, request: RunRequest) -> None:
    """Print a table with key, value, meaning, allowed values and source of each setting of a model.

    The values are those of a run with the options of the command line.

    Raises:
        ModelError: the model is unknown.
        DataError: the dataset is unknown.
        SettingsError: a value of the command line or of a settings file is wrong.
    """
    if len(request.datasets) > 1:
        raise SettingsError("--help-model shows the settings on one dataset; name only one with --dataset")
    dataset = request.datasets[0]
    if dataset not in list_datasets():
        refuse_missing_data([dataset], request.data_path, may_download=request.may_download)
    described = describe_model_settings(name, dataset, load_registry(), request.preset, request.overrides)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=VALUE_WIDTH)
    table.add_column("meaning, allowed values and source")
    for setting in described:
        limits = "; ".join(filter(None, (setting.allowed, f"from {setting.source}")))
        meaning = f"{setting.meaning}\n" if setting.meaning else ""
        table.add_row(Text(setting.key), Text(setting.value), Text.assemble(meaning, (limits, "dim")))
    print(f"Settings of {name} on {dataset}, preset {request.preset}")
    Console().print(table)


def print_settings_schema(name: str) -> None:
    """Print the JSON schema of a model's settings.

    Raises:
        ModelError: the model is unknown.
    """
    print(json.dumps(build_settings_schema(name, load_registry()), indent=2))
