"""Read the current value of a setting from the settings file that a run result names as its origin."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from hellm_recbole.config.layers import DATASETS, OVERRIDES, VARIANTS
from hellm_recbole.config.properties_files import find_by_origin
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.config.yaml_files import Value, find_properties, load_yaml
from hellm_recbole.errors import SettingsError

_PRESET = "preset"


def find_value(origin: str, key: str, model: str) -> tuple[Value] | None:
    """Find the current value of a setting in the file from which a run took it.

    Args:
        origin: origin of the setting in a run result, such as `overall.yaml`, `preset/quick.yaml` or
            `model/VBPR.yaml, datasets: Beauty`.
        key: name of the setting.
        model: model of the run; a variant is treated as its model.

    Returns:
        A tuple with the value, which is "nothing" if the file no longer sets the key. None if the origin is not a
        settings file, for example if it is an option of the command line, or if it is a file of a plug-in or of the
        user that is not there now.
    """
    file, _, section = origin.partition(", ")
    found = _read_settings_file(file)
    if found is None:
        return None
    kind, content = found
    return (_choose_section(content, kind, section, _find_base_model(model)).get(key, "nothing"),)


def _choose_section(content: Mapping[str, Value], kind_of_file: str, section: str, model: str) -> Mapping[str, Value]:
    """Return the values for one model in one section of a settings file; `kind_of_file` is its folder."""
    kind, _, name = section.partition(": ")
    if kind_of_file == _PRESET:
        if kind == DATASETS:
            return ((content.get(DATASETS) or {}).get(name) or {}).get(model) or {}
        return {**(content.get("overall") or {}), **((content.get("models") or {}).get(model) or {})}
    if kind_of_file == "llm":
        return content.get("values") or {}
    if kind in (DATASETS, VARIANTS):
        return (content.get(kind) or {}).get(name) or {}
    return content.get(OVERRIDES) or {} if kind == OVERRIDES else content


@cache
def _find_base_model(model: str) -> str:
    """Return the model of a variant, and any other model as it is."""
    return list_all_variants().get(model, model)


@cache
def _read_settings_file(file: str) -> tuple[str, Mapping[str, Value]] | None:
    """Read a settings file: its kind and its content; None if there is no readable file of that name."""
    known = find_by_origin(file)
    path = find_properties() / file
    is_ours = file.endswith(".yaml") and path.resolve().is_relative_to(find_properties().resolve()) and path.is_file()
    try:
        if known is not None:
            return known.kind, known.read()
        return (path.parent.name, load_yaml(path)) if is_ours else None
    except SettingsError:
        return None


def forget_settings_files() -> None:
    """Forget the content of all settings files, because the user has edited one."""
    _read_settings_file.cache_clear()
    _find_base_model.cache_clear()
