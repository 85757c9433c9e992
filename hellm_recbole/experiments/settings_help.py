"""Description of a model's settings: value, allowed values, source and meaning of each, and a JSON schema of all."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hellm_recbole.config.combined_settings import KIND_SETTINGS, SHARED_SETTINGS
from hellm_recbole.config.harness_settings import HARNESS_SETTINGS
from hellm_recbole.config.limits import LARGEST
from hellm_recbole.config.request import Override
from hellm_recbole.config.row_names import parse_combined_name
from hellm_recbole.config.settings import Settings, format_bound
from hellm_recbole.config.variants import list_variants
from hellm_recbole.config.yaml_files import Value, parse_value
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.fitted_config import FITTED_SETTINGS
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.models.base import ModelSpec

_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_ANY_DATASET, _ANY_PRESET = "", "paper"  # the classes of a model's settings depend on neither


@dataclass(frozen=True)
class SettingDescription:
    """One setting of a model.

    Attributes:
        key: name of the setting.
        value: its value, as it is written in YAML.
        allowed: its type and range in words; empty for a setting of RecBole, which states none.
        source: file or option that set the value.
        meaning: what the setting means; empty for a setting of RecBole.
    """

    key: str
    value: str
    allowed: str
    source: str
    meaning: str


def describe_model_settings(
    name: str, dataset: str, registry: Mapping[str, ModelSpec], preset: str, overrides: Sequence[Override]
) -> list[SettingDescription]:
    """Describe all settings of a run: first those of the model, then those of all runs.

    Args:
        name: name of the model or variant.
        dataset: name of the dataset.
        registry: name -> entry of each of our models.
        preset: name of the preset.
        overrides: values that win over all others.

    Raises:
        ModelError: the model is unknown.
        SettingsError: a setting is wrong.
    """
    (config,) = resolve_runs([name], dataset, registry, preset, overrides)
    resolved = config.resolved
    classes = _list_classes(name, registry) or HARNESS_SETTINGS
    known = {key: (schema, meaning) for cls in classes for key, schema, meaning in _read_fields(cls)}
    keys = [*(key for key in resolved.values if key not in known), *known]  # the former are RecBole's
    described = []
    for key in keys:
        schema, meaning = known.get(key, ({}, ""))
        value = _write_value(resolved.values[key])
        described.append(SettingDescription(key, value, describe_allowed(schema), resolved.origin[key], meaning))
    return described


def build_settings_schema(name: str, registry: Mapping[str, ModelSpec]) -> dict[str, Any]:
    """Build the JSON schema of the settings of a run: those of the model, and those of all runs.

    Args:
        name: name of the model or variant.
        registry: name -> entry of each of our models.

    Returns:
        Schema of an object whose keys are the settings.

    Raises:
        ModelError: the model is unknown, or it is one of RecBole's, whose settings have no types.
    """
    classes = _list_classes(name, registry)
    if not classes:
        resolve_runs([name], _ANY_DATASET, registry, _ANY_PRESET, [])  # refuses an unknown model
        raise ModelError(
            f"the settings of RecBole's {name} have no schema, for RecBole states neither types nor ranges; list them "
            f"with --help-model {name}"
        )
    properties = {
        key: {**_add_common_rules(schema), "description": meaning}
        for cls in classes
        for key, schema, meaning in _read_fields(cls)
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Settings of {name}",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def describe_allowed(schema: Mapping[str, Any]) -> str:
    """Describe in words what a JSON schema allows.

    >>> describe_allowed({"type": "number", "minimum": 0, "exclusiveMaximum": 1})
    'number >= 0 and < 1'
    >>> describe_allowed({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]})
    'list of: text; or null'
    >>> describe_allowed({"enum": ["adam", "adamw"], "type": "string"})
    'adam or adamw'
    """
    if "anyOf" in schema:
        return "; or ".join(describe_allowed(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of: {describe_allowed(schema['items'])}"
    bounds = " and ".join(f"{sign} {format_bound(schema[key])}" for key, sign in _BOUNDS.items() if key in schema)
    return f"{_KINDS.get(schema.get('type', ''), '')} {bounds}".strip()


def read_attributes(docstring: str) -> dict[str, str]:
    r"""Read the section `Attributes` of a docstring: attribute -> text on one line.

    >>> read_attributes("Points.\n\nAttributes:\n    x: first\n        coordinate.\n    y: second one.\n")
    {'x': 'first coordinate.', 'y': 'second one.'}
    """
    _, _, section = inspect.cleandoc(docstring).partition("\nAttributes:\n")
    lines = re.split(r"\n(?=\S)", section)[0]  # up to a further section
    entries = re.split(r"^ {4}(?=\w+: )", lines, flags=re.MULTILINE)[1:]
    pairs = (entry.split(": ", 1) for entry in entries)
    return {name: " ".join(text.split()) for name, text in pairs}


def _list_classes(name: str, registry: Mapping[str, ModelSpec]) -> tuple[type[Settings], ...]:
    """List the classes of the settings of a row, those of all runs last. Return none for a model of RecBole.

    Raises:
        ModelError: the name of a combined row is wrong.
    """
    known = (spec for model, spec in registry.items() if name == model or name in list_variants(model))
    if (spec := next(known, None)) is not None:
        return (*spec.settings_classes, *(FITTED_SETTINGS if spec.is_fitted else HARNESS_SETTINGS))
    combined = parse_combined_name(name)
    return () if combined is None else (KIND_SETTINGS[combined.kind], *SHARED_SETTINGS)


def _read_fields(cls: type[Settings]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Read key, JSON schema and meaning of each setting of a class. Base classes describe their own settings."""
    meanings: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if issubclass(parent, Settings):
            meanings |= read_attributes(parent.__doc__ or "")
    for key, schema in cls.model_json_schema()["properties"].items():
        yield key, {name: part for name, part in schema.items() if name != "title"}, meanings.get(key, "")


def _add_common_rules(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Add the rules that hold for all settings: the largest integer, and no value twice in a list."""
    result = dict(schema)
    if "anyOf" in schema:
        result["anyOf"] = [_add_common_rules(part) for part in schema["anyOf"]]
    if schema.get("type") == "array":
        result |= {"items": _add_common_rules(schema["items"]), "uniqueItems": True}
    if schema.get("type") == "integer":
        result = {"maximum": LARGEST, **result}
    return result


def _write_value(value: Value) -> str:
    """Write a value as in YAML, on one line. A text has quotes only if it would be read as something else without."""
    if isinstance(value, str) and "\n" not in value:
        with contextlib.suppress(SettingsError):
            if parse_value(value, "") == value:
                return value
    return json.dumps(value, ensure_ascii=False)
