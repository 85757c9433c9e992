"""Strict reading of JSON with annotated types. Every key and type is checked, and error messages name the key.

pydantic checks the JSON text, not the parsed objects: its strict mode accepts a list for a tuple in JSON only.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Collection
from typing import Any, NoReturn

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic_core import PydanticSerializationError, to_json
from typing_extensions import TypedDict

from hellm_recbole.errors import shorten
from hellm_recbole.system.files import seal

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_TYPES = {
    "int_type": "of type int",
    "float_type": "of type float",
    "string_type": "of type str",
    "bool_type": "of type bool",
    "dict_type": "an object",
    "model_type": "an object",
    "tuple_type": "a list",
}  # pydantic's error types -> words for messages

_UNREADABLE = "is nested too deeply, or contains text that is not Unicode"


def dump_json(record: Any, left_out: Collection[str] = ()) -> str:
    """Convert a dataclass to JSON text that includes a digest of its content (`files.seal`).

    Args:
        record: instance of a dataclass. Its field `path`, the file that it was read from, is left out.
        left_out: further fields that are left out.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    skipped = {"path", *left_out}
    content = {spec.name: getattr(record, spec.name) for spec in dataclasses.fields(record) if spec.name not in skipped}
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
        hints: key -> annotated type. A `TypedDict` in it is that of `typing_extensions`.
        where: key of the object, for error messages; "" for the top level.

    Raises:
        ValueError: a key is unknown, missing or has a wrong type. The message names the first such key.
    """
    try:
        text = to_json(value, inf_nan_mode="constants")  # infinity is refused where a number is expected
        read: dict[str, Any] = _build_adapter(tuple(hints.items())).validate_json(text)
    except ValidationError as error:
        raise ValueError(describe_fault(error, where)) from error
    except PydanticSerializationError as error:
        raise ValueError(f"{where or 'it'} {_UNREADABLE}") from error
    return read


def read_typed(value: Any, hint: Any, where: str) -> Any:
    """Convert a parsed JSON value to its annotated type.

    Args:
        value: parsed JSON.
        hint: annotated type.
        where: key of the value, for error messages.

    Raises:
        ValueError: the value does not have this type. The message names the key.

    >>> read_typed([1, 2], tuple[int, ...], "cutoffs")
    (1, 2)
    """
    return read_mapping({where: value}, {where: hint}, "")[where]


@functools.cache
def _build_adapter(hints: tuple[tuple[str, Any], ...]) -> TypeAdapter[Any]:
    """Build the strict reader of objects with these keys and types."""
    types = dict(hints)
    record = TypedDict("record", types)  # type: ignore[misc]
    return TypeAdapter(with_config(_STRICT)(record))  # a `TypedDict` inside it inherits the config


def describe_fault(error: ValidationError, where: str = "") -> str:
    """Describe the first fault that pydantic found, such as `key counts is [], it must be an object`.

    Args:
        error: faults that pydantic found.
        where: key of the checked object; "" for the top level.
    """
    fault = error.errors(include_url=False)[0]
    path = where
    for step in fault["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    kind = fault["type"]
    if kind == "json_invalid":
        return f"{where or 'it'} {_UNREADABLE}"
    if kind == "missing":
        return f"key {path} is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"key {path} is unknown"
    if kind == "finite_number":
        return f"key {path} is not a finite number"
    shown = _show(fault["input"])
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
        return f"key {path} is {shown}, not one of {', '.join(choices)}"
    if kind in _TYPES:
        return f"key {path} is {shown}, it must be {_TYPES[kind]}"
    return f"key {path} is {shown}: {fault['msg']}"


def _show(value: Any) -> str:
    """Return a value as a short text for an error message."""
    try:
        return shorten(repr(value))
    except ValueError:  # an integer with too many digits
        return "a number with too many digits"
