"""Read the current value of a setting from the settings file that a run result names as its origin."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from hellm_recbole.config.layers import DATASETS, OVERRIDES, VARIANTS
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.config.yaml_files import Value, find_properties, load_yaml
from hellm_recbole.errors import SettingsError

_PRESETS = "preset/"


def find_value(origin: str, key: str, model: str) -> tuple[Value] | None:
    """Find the current value of a setting in the file from which a run took it.

    Args:
        origin: origin of the setting in a run result, such as `overall.yaml`, `preset/quick.yaml` or
            `model/VBPR.yaml, datasets: Beauty`.
        key: name of the setting.
        model: model of the run; a variant is treated as its model.

    Returns:
        A tuple with the value, which is "nothing" if the file no longer sets the key. None if the origin is not a
        settings file of this project, for example if it is an option of the command line.
    """
    file, _, section = origin.partition(", ")
    content = _read_settings_file(file)
    if content is None:
        return None
    return (_choose_section(content, file, section, _find_base_model(model)).get(key, "nothing"),)


def _choose_section(content: Mapping[str, Value], file: str, section: str, model: str) -> Mapping[str, Value]:
    """Return the values for one model in one section of a settings file."""
    kind, _, name = section.partition(": ")
    if file.startswith(_PRESETS):
        if kind == DATASETS:
            return ((content.get(DATASETS) or {}).get(name) or {}).get(model) or {}
        return {**(content.get("overall") or {}), **((content.get("models") or {}).get(model) or {})}
    if file.startswith("llm/"):
        return content.get("values") or {}
    if kind in (DATASETS, VARIANTS):
        return (content.get(kind) or {}).get(name) or {}
    return content.get(OVERRIDES) or {} if kind == OVERRIDES else content


@cache
def _find_base_model(model: str) -> str:
    """Return the model of a variant, and any other model as it is."""
    return list_all_variants().get(model, model)


@cache
def _read_settings_file(file: str) -> Mapping[str, Value] | None:
    """Read a file of `properties/`; None if there is no readable file of that name."""
    path = find_properties() / file
    if not file.endswith(".yaml") or not path.resolve().is_relative_to(find_properties().resolve()):
        return None
    try:
        return load_yaml(path) if path.is_file() else None
    except SettingsError:
        return None
