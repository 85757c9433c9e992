"""Strict reading of YAML: decimal numbers, no repeated keys, and errors that name file and line."""

from __future__ import annotations

import copy
import functools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from hellm_recbole.errors import SettingsError, shorten

Value = Any  # a YAML scalar, list or mapping


class _Loader(yaml.SafeLoader):
    """Safe YAML loader that reads 1e-3 as a number and rejects repeated keys.

    YAML 1.1 reads 1e-3 as a string. Integers must be decimal: YAML 1.1 reads 1:30 as 90 and 010 as 8, but this loader
    reads both as strings, so they are rejected where a number is required.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        known_keys: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key_node.start_mark)
            if key in known_keys:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} occurs twice", key_node.start_mark)
            known_keys.add(key)
        return super().construct_mapping(node, deep=deep)


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(0|[1-9](_?[0-9])*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^[-+]?([0-9](_?[0-9])*\.?|[0-9](_?[0-9])*\.[0-9]+|\.[0-9]+)[eE][-+]?[0-9]+$"
        r"|^[-+]?([0-9](_?[0-9])*\.[0-9]*|\.[0-9]+)$"
        r"|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
_YAML_ERRORS = (
    yaml.YAMLError,
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
)  # errors for text that is not YAML


def find_properties() -> Path:
    """Find the folder `properties/`, inside the installed package or next to it in a checkout.

    Raises:
        SettingsError: the folder does not exist.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise SettingsError(f"no properties/overall.yaml in {package} or {package.parent}; install the package again")


def load_yaml(path: Path) -> dict[str, Value]:
    """Read a YAML file that contains a mapping. An empty file gives an empty mapping.

    Raises:
        SettingsError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"settings file {path} is not UTF-8 text; save it as UTF-8") from error
    return copy.deepcopy(_parse_mapping(text, str(path)))  # callers change what they get


def parse_value(text: str, where: str) -> Value:
    """Parse a YAML value from the command line.

    Args:
        text: text of the value.
        where: option that contains the value, for error messages.

    Raises:
        SettingsError: the text is not a YAML value.

    >>> parse_value("1e-3", "--set"), parse_value("[a, b]", "--set"), parse_value("true", "--set")
    (0.001, ['a', 'b'], True)
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except _YAML_ERRORS as error:
        quoted = quote_option(where)
        hint = f"; if it is a text, write {shorten(quoted, 100)}" if quoted else ""
        raise SettingsError(f"{shorten(where)}: {shorten(text)!r} is not a YAML value{hint}") from error


def quote_option(option: str) -> str:
    """Return an option such as `--set KEY=VALUE` as a user writes it in a shell to give the value as a text.

    Without quotes of its own, a text such as `{user}` is a mapping in YAML, and the shell removes the outer quotes.

    Returns:
        The option; "" if it is not of this form.

    >>> print(quote_option("--set HeLLM.prompt={user} bought"))
    --set 'HeLLM.prompt="{user} bought"'
    """
    name, space, given = option.partition(" ")
    key, equals, text = given.partition("=")
    if not (name.startswith("--") and space and equals):
        return ""
    return f"{name} {shlex.quote(f'{key}={json.dumps(text, ensure_ascii=False)}')}"


@functools.lru_cache(maxsize=512)
def _parse_mapping(text: str, where: str) -> dict[str, Value]:
    """Parse YAML text that contains a mapping. `where` is the file's path, for error messages.

    A command reads the same files many times. Equal text gives an equal mapping, so it is parsed once.
    """
    try:
        loaded = yaml.load(text, Loader=_Loader)
    except _YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "is not valid YAML"
        raise SettingsError(f"settings file {where}{line}: {problem}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise SettingsError(f"settings file {where} must contain `key: value` lines")
    return loaded
