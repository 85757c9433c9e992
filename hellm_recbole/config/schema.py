"""Strict reading of JSON with annotated types. Every key and type is checked, and error messages name the key."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints, is_typeddict

from hellm_recbole.errors import shorten
from hellm_recbole.system.files import seal


def dump_json(record: Any) -> str:
    """Convert a dataclass to JSON text that includes a digest of its content (`files.seal`).

    Args:
        record: instance of a dataclass. Its field `path`, the file that it was read from, is left out.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    content = {spec.name: getattr(record, spec.name) for spec in dataclasses.fields(record) if spec.name != "path"}
    return json.dumps(seal(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def refuse_constant(name: str) -> NoReturn:
    """Reject NaN and infinity in JSON, as argument `parse_constant` of `json.loads`.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{name} is not a number")


def read_mapping(value: Any, hints: dict[str, Any], where: str) -> dict[str, Any]:
    """Read a JSON object that has exactly the keys of `hints`.

    Args:
        value: parsed JSON.
        hints: key -> annotated type.
        where: key of the object, for error messages; "" for the top level.

    Raises:
        ValueError: a key is unknown, missing or has a wrong type. The message names the key.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object")
    prefix = f"{where}." if where else ""
    for key in sorted(value.keys() ^ hints.keys()):
        raise ValueError(f"key {prefix}{key} is {'unknown' if key in value else 'missing'}")
    return {key: read_typed(value[key], hint, f"{prefix}{key}") for key, hint in hints.items()}


def read_typed(value: Any, hint: Any, where: str) -> Any:
    """Convert a parsed JSON value to its annotated type.

    Args:
        value: parsed JSON.
        hint: annotated type.
        where: key of the value, for error messages.

    Raises:
        ValueError: the value does not have this type. The message names the key.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_typeddict(hint):
        return read_mapping(value, get_type_hints(hint), where)
    if origin is types.UnionType:  # the schema's only unions are `T | None`
        return None if value is None else read_typed(value, arguments[0], where)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"key {where} is {_shorten(value)}, not one of {', '.join(arguments)}")
        return value
    if origin is dict and isinstance(value, dict):
        return {key: read_typed(part, arguments[1], f"{where}.{key}") for key, part in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(read_typed(part, arguments[0], f"{where}[{index}]") for index, part in enumerate(value))
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if type(value) is float and not math.isfinite(value):  # 1e400 is JSON
        raise ValueError(f"key {where} is not a finite number")
    if type(value) is not hint:
        name = {dict: "an object", tuple: "a list"}.get(origin) if origin else f"of type {hint.__name__}"
        raise ValueError(f"key {where} is {_shorten(value)}, it must be {name}")
    return value


def _shorten(value: Any) -> str:
    """Return a value as a short text for an error message."""
    try:
        return shorten(repr(value))
    except ValueError:  # an integer with too many digits
        return "a number with too many digits"
