"""Layers of settings: their merging, and the origin of each value.

The layers are, in this order: `overall.yaml`; `model/<Name>.yaml`; the model's sections `overrides` and `datasets`; a
preset; the model's variant; `--set`. The first two may not set the same key. Each later layer overrides the earlier
ones. If a model's file names another one in `inherits`, the values and these sections of that file come before its own.
No value is set in code: all values are in `properties/`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hellm_recbole.config.yaml_files import Value
from hellm_recbole.errors import SettingsError, shorten

# Sections of a model's file: values that override overall.yaml, values for single datasets, and named variants.
OVERRIDES, DATASETS, VARIANTS = SECTIONS = ("overrides", "datasets", "variants")
INHERITS = "inherits"  # key of a model's file: the model whose values, overrides and values for datasets it has, too
AUTOMATIC, AUTO = "batch_size", "auto"  # setting that may be chosen from the data, and the value that says so
WITHOUT = "without"  # of a model's file: list of the settings of llm.yaml that the model does not have


@dataclass(frozen=True)
class Resolved:
    """Merged settings with the file or option that set each value.

    Attributes:
        values: key -> value.
        origin: key -> file or option that set it.
        automatic: key -> value below `auto`, of a setting that is chosen from the data.
    """

    values: Mapping[str, Value]
    origin: Mapping[str, str]
    automatic: Mapping[str, Value] = field(default_factory=dict)

    def override(self, values: Mapping[str, Value], origin: str) -> Resolved:
        """Return a copy in which `values` override the existing values.

        The value `auto` of `batch_size` keeps the value below it, from which the batch size grows with the data.

        Raises:
            SettingsError: there is no number below `auto`.
        """
        automatic = {key: value for key, value in self.automatic.items() if key not in values}
        if values.get(AUTOMATIC) == AUTO:
            own = self.values.get(AUTOMATIC)
            if not isinstance(own, int):
                raise SettingsError(
                    f"{origin}: {AUTOMATIC} = {AUTO} grows from the batch size of the model's settings file, which has "
                    "none; write a number"
                )
            values, automatic = {**values, AUTOMATIC: own}, {**automatic, AUTOMATIC: own}
        return Resolved({**self.values, **values}, {**self.origin, **dict.fromkeys(values, origin)}, automatic)


def merge_layers(layers: Iterable[tuple[str, Mapping[str, Value]]]) -> Resolved:
    """Merge layers that have no key in common.

    Args:
        layers: (origin, values) of each layer.

    Raises:
        SettingsError: two layers set the same key.
    """
    values: dict[str, Value] = {}
    origin: dict[str, str] = {}
    for name, layer in layers:
        for key, value in layer.items():
            if key in values:
                raise SettingsError(f"{name} and {origin[key]} both set {key!r}; keep it in one of them")
            values[key], origin[key] = value, name
    return Resolved(values, origin)


def describe_unknown_keys(resolved: Resolved, known: Iterable[str]) -> list[str]:
    """Return an error message for each unknown key, with the most similar valid key."""
    valid = sorted(known)
    errors = []
    for key in resolved.values:
        if key in valid:
            continue
        similar = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
        hint = f"did you mean {similar[0]!r}?" if similar else f"valid keys are {', '.join(valid)}"
        errors.append(f"{shorten(resolved.origin[key])}: unknown setting {shorten(key)!r}; {hint}")
    return errors
