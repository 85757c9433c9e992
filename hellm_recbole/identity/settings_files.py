"""What a settings file says now, where a record says what it said when a run was resolved."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from hellm_recbole.config.layers import DATASETS, OVERRIDES, VARIANTS, Value, find_properties, load_yaml
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.errors import SettingsError

_PRESETS = "preset/"


def find_value(origin: str, key: str, model: str) -> tuple[Value] | None:
    """The value that the origin of a setting gives now.

    Args:
        origin: as a record has it: `overall.yaml`, `preset/quick.yaml`, `model/VBPR.yaml, datasets: Beauty` and so on.
        key: of the setting.
        model: of the run; a variant counts as its model.

    Returns:
        The value, which is "nothing" where the file does not set the key any more; None where the origin is no settings
        file of this project, such as an option of the command line.
    """
    file, _, section = origin.partition(", ")
    content = _read(file)
    if content is None:
        return None
    base = list_all_variants().get(model, model)
    return (_choose(content, file, section, base).get(key, "nothing"),)


def _choose(content: Mapping[str, Value], file: str, section: str, model: str) -> Mapping[str, Value]:
    """The values of one section of a file, for one model."""
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
def _read(file: str) -> Mapping[str, Value] | None:
    """A file of `properties/`; None where there is none of that name."""
    path = find_properties() / file
    if not file.endswith(".yaml") or not path.resolve().is_relative_to(find_properties().resolve()):
        return None
    try:
        return load_yaml(path) if path.is_file() else None
    except SettingsError:
        return None
