"""Read the file of `--config`: values of options, which the command line overrides, and settings of models.

The keys are the names of the options, without dashes at the start. `settings` has the settings: `key: value` for all
models that have the setting, and `MODEL: {key: value}` for one. RecBole's names of settings are understood, also at the
top of the file.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hellm_recbole.config.recbole_keys import EVALUATION, is_recbole_key
from hellm_recbole.config.request import Override
from hellm_recbole.config.row_names import split_names
from hellm_recbole.config.yaml_files import Value, load_yaml
from hellm_recbole.errors import SettingsError, shorten

CONFIG, SETTINGS, SEARCH = "--config", "settings", "search"
# Options of the commands that take a config file. One file may be used for several commands.
_SEARCH_OPTIONS = ("budget", "scheduler", "search", "space", "only", "name")
_COMMANDS: dict[str, tuple[str, ...]] = {
    "run and ablate": ("tuned", "protocol", "export", "export_k", "dry_run", "callbacks"),
    "tune": _SEARCH_OPTIONS,
    "study and reproduce": ("studies",),
    "other commands": ("models", "embeddings"),
}
_OTHER_NAMES = {"datasets": "dataset"}
_SETTINGS_OF_LLM = ("llm", "llm_layers")  # options that are settings
_TRAINING = ("epochs", "learning_rate", "weight_decay", "valid_metric")  # settings that RecBole has under these names
_NO_VALUES = ("config", "version", "help", "help_model", "settings_schema", "list", "plan", "only_finished", "set")
_PAIRS = ("embeddings", "space")  # options that are given once for each `key=value`


@dataclass(frozen=True)
class ConfigFile:
    """What a config file says.

    Attributes:
        path: the file, as the user named it.
        arguments: options of the command, as arguments of a command line.
        overrides: settings; those of the command line win over them.
        models: models that the file names.
        unread: keys that only other commands read.
    """

    path: Path
    arguments: tuple[str, ...]
    overrides: tuple[Override, ...]
    models: tuple[str, ...]
    unread: tuple[str, ...]

    def select_overrides(self, models: Collection[str]) -> list[Override]:
        """Select the settings of a command for some models: those of other models that the file names are left out."""
        return [one for one in self.overrides if one.model in models or one.model not in self.models]


def find_config(arguments: Sequence[str]) -> Path | None:
    """Find the value of `--config` among arguments of the form `--option=value`; the last one counts."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    found = [word.removeprefix(f"{CONFIG}=") for word in before if word.startswith(f"{CONFIG}=")]
    return Path(found[-1]) if found else None


def read_config(path: Path, options: Mapping[str, bool]) -> ConfigFile:
    """Read a config file.

    Args:
        path: the file.
        options: names of the command's options, such as --seeds, and whether each takes a value.

    Raises:
        SettingsError: the file is missing, or a key or the type of a value is wrong.
    """
    if path.is_dir():
        raise SettingsError(f"{CONFIG} {path} is a folder; name a YAML file such as examples/experiment.yaml")
    if not path.is_file():
        raise SettingsError(f"{CONFIG} {path} does not exist; name a YAML file such as examples/experiment.yaml")
    arguments: list[str] = []
    overrides: list[Override] = []
    unread = []
    for key, value in _flatten_search(path, load_yaml(path)):
        option = _name_option(key)
        name = option.removeprefix("--").replace("-", "_")
        if value is None:
            continue
        if name == SETTINGS:
            overrides += _read_settings(path, value)
        elif name in _SETTINGS_OF_LLM:
            overrides.insert(0, Override(None, name, _check_scalar(path, key, value), _name_origin(path)))
        elif option in options and name not in _NO_VALUES:
            arguments += _make_arguments(path, key, option, value, takes_value=options[option])
        elif name in {known for names in _COMMANDS.values() for known in names}:
            unread.append(key)
        elif is_recbole_key(key) or key in _TRAINING:
            overrides.append(Override(None, key, value, _name_origin(path)))
        else:
            raise SettingsError(_describe_unknown(path, key, options))
    models = [word.partition("=")[2] for word in arguments if word.startswith("--models=")]
    return ConfigFile(path, tuple(arguments), tuple(overrides), tuple(split_names(",".join(models))), tuple(unread))


def _flatten_search(path: Path, content: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """List the keys of a file; those of a section `search` are the options of a search.

    Raises:
        SettingsError: a key stands in the section and at the top.
    """
    for key, value in content.items():
        if key == SEARCH and isinstance(value, dict):
            for inner, given in value.items():
                name = SEARCH if inner == "method" else str(inner)
                if name in content and name != SEARCH:
                    raise SettingsError(f"{path}: {name} stands at the top and in {SEARCH}; give it once")
                if name not in (*_SEARCH_OPTIONS, "studies"):
                    near = difflib.get_close_matches(name, [*_SEARCH_OPTIONS, "method"], n=1)
                    known = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(_SEARCH_OPTIONS)}"
                    raise SettingsError(f"{path}: unknown key {shorten(name)!r} in {SEARCH}; {known}")
                yield name, given
        else:
            yield key, value


def _name_option(key: str) -> str:
    """Return the name of the option that a key means.

    >>> _name_option("data_path"), _name_option("datasets")
    ('--data-path', '--dataset')
    """
    return f"--{_OTHER_NAMES.get(key, key).replace('_', '-')}"


def _name_origin(path: Path) -> str:
    """Return the origin of a setting of the file; like an option of the command line, it begins with two dashes."""
    return f"{CONFIG} {path}"


def _make_arguments(path: Path, key: str, option: str, value: Value, *, takes_value: bool) -> list[str]:
    """Make the arguments of a command line that give an option the value of a key.

    Raises:
        SettingsError: the value has a wrong type.
    """
    if not takes_value:
        if not isinstance(value, bool):
            raise SettingsError(f"{path}: {key} = {shorten(repr(value))} must be true or false")
        return [option] if value else []
    if isinstance(value, dict) and key in _PAIRS:
        return [f"{option}={name}={_write(part)}" for name, part in value.items()]
    if isinstance(value, dict) and key == "budget" and len(value) == 1:
        ((kind, amount),) = value.items()
        return [f"{option}={kind}={amount}"]
    if value is True and option == "--ray":
        return [f"{option}=local"]
    if value is False and option == "--ray":
        return []
    if isinstance(value, list) and key in _PAIRS:
        return [f"{option}={_check_scalar(path, key, part)}" for part in value]
    parts = value if isinstance(value, list) else [value]
    if option == "--models" and not all(isinstance(part, str) for part in parts):
        raise SettingsError(
            f"{path}: {key} = {shorten(repr(value))} must be a list of names, such as [LightGCN, SASRec]"
        )
    return [f"{option}={','.join(str(_check_scalar(path, key, part)) for part in parts)}"]


def _check_scalar(path: Path, key: str, value: Value) -> Value:
    """Return a value that is a text or a number.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SettingsError(f"{path}: {key} = {shorten(repr(value))} must be a text, a number, or a list of these")
    return value


def _write(value: Any) -> str:
    """Write a value of a mapping as on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _read_settings(path: Path, content: Value) -> Iterator[Override]:
    """Read the section `settings`: values for all models, and for single models.

    Raises:
        SettingsError: the section is not a mapping.
    """
    if not isinstance(content, dict):
        raise SettingsError(
            f"{path}: {SETTINGS} = {shorten(repr(content))} must have lines `key: value` or `MODEL: {{key: value}}`"
        )
    for key, value in content.items():
        if isinstance(value, dict) and key not in (*EVALUATION, "clip_grad_norm", "train_neg_sample_args"):
            for inner, given in value.items():
                yield Override(str(key), str(inner), given, _name_origin(path))
        else:
            model, dot, bare = str(key).rpartition(".")
            yield Override(model if dot else None, bare, value, _name_origin(path))


def _describe_unknown(path: Path, key: str, options: Collection[str]) -> str:
    """Describe an unknown key of the file, with the nearest known one."""
    known = [option.removeprefix("--").replace("-", "_") for option in options]
    known = [name for name in known if name not in _NO_VALUES]
    known += [SETTINGS, SEARCH, *(name for names in _COMMANDS.values() for name in names), *_OTHER_NAMES]
    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"keys are {', '.join(dict.fromkeys(sorted(known)))}"
    return f"{path}: unknown key {shorten(key)!r}; {hint} (settings of models stand in {SETTINGS})"
