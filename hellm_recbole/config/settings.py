"""Typed settings: the base class, and the building of settings from values with their origins.

The faults of all settings of a run are reported together, in one `SettingsError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, field_validator

from hellm_recbole.config.layers import Resolved, describe_unknown_keys
from hellm_recbole.config.limits import LARGEST
from hellm_recbole.config.yaml_files import Value, find_properties, load_yaml, quote_option
from hellm_recbole.errors import SettingsError, shorten

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

S = TypeVar("S", bound="Settings")

_BOUNDS = {
    "greater_than_equal": (">=", "ge"),
    "greater_than": (">", "gt"),
    "less_than_equal": ("<=", "le"),
    "less_than": ("<", "lt"),
}  # pydantic's error types -> sign in messages, key of the bound
_TYPES = {"int_type": "int", "float_type": "float", "string_type": "str", "bool_type": "bool"}


class Settings(BaseModel):
    """Base of all classes of settings.

    A subclass has no defaults, because all values are in `properties/`. It states types and ranges:
    `Literal["a", "b"]` lists allowed values, and pydantic's `Field(ge=0, lt=1)` is a range. In addition, numbers must
    be finite, integers at most `LARGEST`, and lists (`tuple[...]`) without duplicates. Types are strict: `true` is
    not a number, and 1.0 is not an integer. Settings that depend on each other are checked by a
    `model_validator(mode="after")`. It raises a `ValueError` whose message names the settings.

    `model_copy(update=...)` changes settings without checking them.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _check_every_setting(cls, value: Value, handler: ValidatorFunctionWrapHandler) -> Value:
        """Convert a YAML list to a tuple, check the type and range, and then the rules for all settings."""
        checked = handler(tuple(value) if isinstance(value, list) else value)
        parts = checked if isinstance(checked, tuple) else (checked,)
        if len(set(parts)) < len(parts):
            raise ValueError("contains a value twice")
        if any(isinstance(part, int) and abs(part) > LARGEST for part in parts):
            raise ValueError(f"must be at most {LARGEST}")
        return checked


def list_field_names(cls: type[Settings]) -> tuple[str, ...]:
    """List the keys of a class of settings."""
    return tuple(cls.model_fields)


def list_choices(annotation: Any) -> tuple[Value, ...]:
    """List the values that a setting or the parts of its list may have; empty if its type does not list them.

    >>> list_choices(tuple[Literal["adam", "adamw"], ...] | None), list_choices(int)
    (('adam', 'adamw'), ())
    """
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in list_choices(part))


def format_bound(bound: float) -> str:
    """Write the bound of a range, as a whole number if it is one.

    >>> format_bound(0.0), format_bound(1e6), format_bound(0.02), format_bound(1e30)
    ('0', '1000000', '0.02', '1e+30')
    """
    return str(int(bound) if abs(bound) <= LARGEST and bound == int(bound) else bound)


def build_settings(cls: type[S], resolved: Resolved, *, extra_known: Iterable[str] = (), file: str = "") -> S:
    """Build settings of the class `cls` from resolved values.

    Args:
        cls: class of the settings.
        resolved: values with their origins.
        extra_known: keys that belong to another class of settings of the same run.
        file: file to which the user should add missing keys, for error messages.

    Raises:
        SettingsError: a key is unknown, missing, of the wrong type or out of range, or values contradict each other.
            One message lists all such faults.
    """
    (settings,) = build_all_settings([cls], resolved, extra_known=extra_known, file=file)
    return settings


def build_all_settings(
    classes: Sequence[type[S]], resolved: Resolved, *, extra_known: Iterable[str] = (), file: str = ""
) -> list[S]:
    """Build settings of several classes, and report the faults of all in one message.

    Args:
        classes: classes of the settings.
        resolved: values with their origins.
        extra_known: keys that belong to another class of settings of the same run.
        file: file to which the user should add missing keys, for error messages.

    Raises:
        SettingsError: a key is unknown, missing, of the wrong type or out of range, or values contradict each other.
            One message lists all such faults.
    """
    names = dict.fromkeys(name for cls in classes for name in list_field_names(cls))
    faults = describe_unknown_keys(resolved, {*extra_known, *names})
    missing = [name for name in names if name not in resolved.values]
    if missing:
        where = file or f"a file of {find_properties()}"
        are, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        faults.append(f"{', '.join(missing)} {are} not set; add {them} to {where}")
    built = []
    for cls in classes:
        try:
            built.append(cls.model_validate(_select_values(cls, resolved.values)))
        except ValidationError as error:
            faults += _describe_faults(cls, error, resolved)
    if faults:
        raise SettingsError("; ".join(dict.fromkeys(faults)))
    return built


def load_settings(cls: type[S], name: str) -> S:
    """Load settings from a single file of `properties/`, without other layers.

    Args:
        cls: class of the settings.
        name: path of the file inside `properties/`.

    Raises:
        SettingsError: the file cannot be read, or a key is unknown, missing, of the wrong type or out of range.
    """
    path = find_properties() / name
    values = load_yaml(path)
    return build_settings(cls, Resolved(values, dict.fromkeys(values, str(path))), file=str(path))


def _select_values(cls: type[Settings], values: Mapping[str, Value]) -> dict[str, Value]:
    """Select the values of one class of settings."""
    return {name: values[name] for name in list_field_names(cls) if name in values}


def _describe_faults(cls: type[Settings], error: ValidationError, resolved: Resolved) -> Iterator[str]:
    """Describe the faults that pydantic found in the values of one class, except missing keys: one for each key."""
    seen = set()
    for fault in error.errors(include_url=False):
        key = str(fault["loc"][0]) if fault["loc"] else ""
        if fault["type"] == "missing" or key in seen:
            continue
        seen.add(key)
        if key:
            shown = shorten(repr(resolved.values[key]))
            quoted = quote_option(resolved.origin[key]) if fault["type"] == "string_type" else ""
            hint = f"; to give a text, write {shorten(quoted, 100)}" if quoted else ""
            yield f"{shorten(resolved.origin[key])}: {key} = {shown} {_describe_fault(cls, key, fault)}{hint}"
        else:  # values that contradict each other
            message = str(fault["ctx"]["error"])
            yield f"{_find_origins(resolved, list_field_names(cls), message)}: {message}"


def _describe_fault(cls: type[Settings], key: str, fault: ErrorDetails) -> str:
    """Say what is allowed for a value that pydantic refused."""
    kind = fault["type"]
    if kind == "value_error":
        return str(fault["ctx"]["error"])
    if kind in _BOUNDS:
        sign, name = _BOUNDS[kind]
        return f"must be {sign} {format_bound(fault['ctx'][name])}"
    if kind == "literal_error":
        return f"must be one of {', '.join(map(str, list_choices(cls.model_fields[key].annotation)))}"
    if kind == "tuple_type":
        return "must be a list"
    if kind == "finite_number" or (kind == "float_type" and type(fault["input"]) is int):  # an integer beyond floats
        return "must be a finite number"
    if kind in _TYPES:
        return f"must be of type {_TYPES[kind]}"
    return f"is not allowed ({fault['msg']})"


def _find_origins(resolved: Resolved, keys: Iterable[str], message: str) -> str:
    """Return the origins of the settings that a message names."""
    named = [key for key in keys if re.search(rf"\b{key}\b", message)]
    return " and ".join(dict.fromkeys(resolved.origin[key] for key in named)) or "settings"
