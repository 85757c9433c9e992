"""Merge the layers of settings of one model on one dataset: settings files, preset, variant and command line."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hellm_recbole.config.layers import (
    DATASETS,
    INHERITS,
    OVERRIDES,
    SECTIONS,
    VARIANTS,
    WITHOUT,
    Resolved,
    merge_layers,
)
from hellm_recbole.config.properties_files import PropertiesFile, find_file, list_names, locate_file
from hellm_recbole.config.recbole_keys import choose_length_key
from hellm_recbole.config.request import Override
from hellm_recbole.config.variants import list_variants
from hellm_recbole.config.yaml_files import Value, find_properties, load_yaml
from hellm_recbole.errors import SettingsError

_MODEL = "model"  # folder of the settings files of models
# Sections of a preset besides `overall`, `models` and `datasets`: whether the sections `datasets` of the models' own
# files apply under it, and the item features that its numbers are for (`preset_features.py`).
MODEL_DATASETS, FEATURES = "model_datasets", "features"
_PRESET_SECTIONS = ("overall", "models", DATASETS, MODEL_DATASETS, FEATURES)


@dataclass(frozen=True)
class RunName:
    """The name of a model or variant, taken apart.

    Attributes:
        name: the whole name, such as HeLLMPre-no-text.
        base: name of the model, such as HeLLMPre.
        variant: name of the variant, such as no-text; None for the model itself.
    """

    name: str
    base: str
    variant: str | None

    @property
    def file(self) -> Path:
        """The model's settings file."""
        return locate_file("model", self.base)


def split_variant(name: str, registry: Iterable[str]) -> tuple[str, str | None]:
    """Split a name into registered model and variant. A registered name gives (name, None)."""
    if name in registry:
        return name, None
    for model in registry:
        if name.startswith(f"{model}-") and name in list_variants(model):  # the first test saves reading most files
            return model, name.removeprefix(f"{model}-")
    return name, None


def list_presets() -> list[str]:
    """Return the names of all presets, sorted."""
    return list_names("preset")


def merge_model_layers(
    name: RunName,
    dataset: str,
    preset: str,
    overrides: Sequence[Override],
    known: Collection[str],
    *,
    reads_language_model: bool = False,
    defaults: Mapping[str, Value] | None = None,
    defaults_origin: str = "",
) -> Resolved:
    """Merge all layers of settings of a model. A later layer overrides the earlier ones.

    Args:
        name: name of the model or variant.
        dataset: name of the dataset.
        preset: name of the preset.
        overrides: values that win over all others; those of other models are ignored.
        known: settings that the model has; values for all models may contain others.
        reads_language_model: whether the model has the settings of `llm.yaml`, and those of its language model.
        defaults: values of settings that no settings file has; only a model of RecBole has them.
        defaults_origin: where the defaults come from.

    Raises:
        SettingsError: a file cannot be read, the preset is unknown, or two of the first layers set the same key.
    """
    files = _read_model_files(name, required=defaults is None)
    layers = _list_first_layers(files, reads_language_model=reads_language_model)
    llm_overrides = layers["llm.yaml"].pop(OVERRIDES) if reads_language_model else {}
    if defaults is not None:
        given = {key for layer in layers.values() for key in layer}
        layers[defaults_origin] = {key: value for key, value in defaults.items() if key not in given}
    resolved = merge_layers(layers.items()).override(llm_overrides, f"llm.yaml, {OVERRIDES}")
    has_datasets = read_preset(preset).get(MODEL_DATASETS, True)
    for file in files:
        resolved = _apply_section(resolved, file, OVERRIDES, file.sections[OVERRIDES])
        if has_datasets:
            of_dataset = file.sections[DATASETS].get(dataset, {})
            resolved = _apply_section(resolved, file, f"{DATASETS}: {dataset}", of_dataset)
    given_values = _select_overrides(name, overrides, known)
    if reads_language_model:
        chosen = [override.value for override in given_values if override.key == "llm"] or [resolved.values["llm"]]
        resolved = resolved.override(*_read_language_model_values(str(chosen[-1])))
    resolved = _apply_preset(resolved, preset, name.base, dataset, known)
    if name.variant is not None:
        variant_values = files[-1].sections[VARIANTS][name.variant]
        resolved = _apply_section(resolved, files[-1], f"{VARIANTS}: {name.variant}", variant_values)
    for override in given_values:
        resolved = resolved.override({override.key: override.value}, override.origin)
    return resolved


@dataclass(frozen=True)
class _ModelFile:
    """The settings file of a model.

    Attributes:
        origin: name of the file as the origin of its values.
        values: setting -> value.
        sections: name of each section, which may be empty -> its content.
    """

    origin: str
    values: dict[str, Value]
    sections: dict[str, Mapping[str, Value]]


def _read_model_files(name: RunName, *, required: bool) -> list[_ModelFile]:
    """Read the settings file of a model, after the file of the model that it inherits from, if there is one.

    Args:
        name: name of the model.
        required: whether a missing file is an error.

    Raises:
        SettingsError: a file cannot be read, or the inherited one inherits itself.
    """
    file = find_file(_MODEL, name.base)
    if file is None and required:
        raise SettingsError(
            f"model {name.base} has no settings file {name.file}; a plug-in has it in its package, as "
            f"properties/{_MODEL}/{name.base}.yaml, and a user in the folder of --properties"
        )
    if file is None:
        return [_divide_sections(f"{_MODEL}/{name.base}.yaml", {})]
    values = file.read()
    parent = values.pop(INHERITS, None)
    files = [_divide_sections(file.origin, values)]
    if parent is not None:
        files.insert(0, _read_inherited(name, str(parent)))
    return files


def _read_inherited(name: RunName, parent: str) -> _ModelFile:
    """Read the settings file of the model that another one inherits from.

    Raises:
        SettingsError: there is no such file, or it inherits from another one itself.
    """
    found = find_file(_MODEL, parent)
    if found is None:
        raise SettingsError(f"{name.file}: {INHERITS} = {parent!r}, but there is no file {locate_file(_MODEL, parent)}")
    inherited = found.read()
    if INHERITS in inherited:
        raise SettingsError(f"{name.file}: {INHERITS} = {parent!r}, whose file inherits from another one itself")
    return _divide_sections(found.origin, inherited)


def _divide_sections(origin: str, values: dict[str, Value]) -> _ModelFile:
    """Divide the content of a settings file into values and sections."""
    sections = {section: values.pop(section, None) or {} for section in SECTIONS}
    return _ModelFile(origin, values, sections)


def _list_first_layers(files: Sequence[_ModelFile], *, reads_language_model: bool) -> dict[str, dict[str, Value]]:
    """Read the layers that may not have a key in common: origin -> values.

    Raises:
        SettingsError: a file cannot be read, or the model leaves out a setting that `llm.yaml` does not have.
    """
    layers = {"overall.yaml": load_yaml(find_properties() / "overall.yaml")}
    own = {file.origin: dict(file.values) for file in files}
    if reads_language_model:
        shared = load_yaml(find_properties() / "llm.yaml")
        for name, values in own.items():
            for key in values.pop(WITHOUT, None) or []:
                if key not in shared:
                    raise SettingsError(f"{name}: {WITHOUT} lists {key!r}, which llm.yaml does not set; remove it")
                del shared[key]
        layers["llm.yaml"] = shared
    return {**layers, **own}


def _apply_section(resolved: Resolved, file: _ModelFile, section: str, values: Mapping[str, Value]) -> Resolved:
    """Override settings with a section of a model's settings file."""
    return resolved.override(values, f"{file.origin}, {section}")


def _select_overrides(name: RunName, overrides: Sequence[Override], known: Collection[str]) -> list[Override]:
    """Select the overrides of a model: those that name it, and those for all models whose setting it has."""
    named = (name.name, name.base)
    overrides = [replace(one, key=choose_length_key(one.key, known)) for one in overrides]
    return [one for one in overrides if one.model in named or (one.model is None and one.key in known)]


def _read_language_model_values(llm: str) -> tuple[dict[str, Value], str]:
    """Read the settings for a known language model, and return them with the name of their file.

    For an unknown language model both are empty.
    """
    for name in list_names("llm"):
        file = find_file("llm", name)
        content = {} if file is None else file.read()
        if file is not None and llm in content.get("names", ()):
            return content["values"], file.origin
    return {}, ""


def _apply_preset(resolved: Resolved, preset: str, model: str, dataset: str, known: Collection[str]) -> Resolved:
    """Override settings with the preset: its values for all models, for this model, and for it on this dataset.

    Later values win over earlier ones.

    Args:
        resolved: values of all settings with their origins.
        preset: name of the preset.
        model: name of the model.
        dataset: name of the dataset.
        known: settings that the model has; the preset's values for all models may contain others.

    Raises:
        SettingsError: the preset is unknown or has an unknown section.
    """
    layer = read_preset(preset)
    shared = {key: value for key, value in (layer.get("overall") or {}).items() if key in known}
    of_model = (layer.get("models") or {}).get(model) or {}
    on_dataset = ((layer.get(DATASETS) or {}).get(dataset) or {}).get(model) or {}
    file = _find_preset(preset).origin
    return (
        resolved.override(shared, file).override(of_model, file).override(on_dataset, f"{file}, {DATASETS}: {dataset}")
    )


def read_preset(preset: str) -> dict[str, Value]:
    """Read the file of a preset.

    Raises:
        SettingsError: the preset is unknown or has an unknown section.
    """
    file = _find_preset(preset)
    path, layer = file.path, file.read()
    extra = sorted(layer.keys() - {*_PRESET_SECTIONS})
    if extra:
        raise SettingsError(
            f"{path}: unknown section {extra[0]!r}; a preset has overall, models and {DATASETS}, and may have "
            f"{MODEL_DATASETS} and {FEATURES}"
        )
    if not isinstance(layer.get(MODEL_DATASETS, True), bool):
        raise SettingsError(f"{path}: {MODEL_DATASETS} = {layer[MODEL_DATASETS]!r} must be true or false")
    return layer


def _find_preset(preset: str) -> PropertiesFile:
    """Find the file of a preset.

    Raises:
        SettingsError: the preset is unknown.
    """
    file = find_file("preset", preset)
    if file is None:
        near = difflib.get_close_matches(preset, list_presets(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known presets are {', '.join(list_presets())}"
        raise SettingsError(f"unknown preset {preset!r}; {hint}")
    return file
