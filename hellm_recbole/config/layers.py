"""Layered settings in strict YAML, with the origin of each value.

The layers are, in this order: `overall.yaml`; `model/<Name>.yaml`; the model's sections `overrides` and `datasets`; a
preset; the model's variant; `--set`. The first two may not set the same key. Each later layer overrides the earlier
ones. No value is set in code: all values are in `properties/`. All errors are reported together in one `SettingsError`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from hellm_recbole.errors import SettingsError

S = TypeVar("S")
LARGEST = 2**31 - 1  # largest integer: torch, numpy and C libraries accept it as a size everywhere
LARGEST_FLOAT = 1e30  # largest number for computations in single precision
LARGEST_CUTOFF = 10**6  # largest K of Recall@K and NDCG@K
LARGEST_SEED = 2**64 - 1  # largest seed that torch accepts
MOST_THREADS = 1024
MOST_EPOCHS = 10**6
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
    return _parse_mapping(text, str(path))


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
        raise SettingsError(f"{shorten(where)}: {shorten(text)!r} is not a YAML value") from error


def _parse_mapping(text: str, where: str) -> dict[str, Value]:
    """Parse YAML text that contains a mapping. `where` is the file's path, for error messages."""
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


@dataclass(frozen=True)
class Resolved:
    """Merged settings with the file or option that set each value.

    Attributes:
        values: key -> value.
        origin: key -> file or option that set it.
    """

    values: Mapping[str, Value]
    origin: Mapping[str, str]

    def override(self, values: Mapping[str, Value], origin: str) -> Resolved:
        """Return a copy in which `values` override the existing values."""
        return Resolved({**self.values, **values}, {**self.origin, **dict.fromkeys(values, origin)})


def shorten(text: str, most: int = 200) -> str:
    """Shorten a text for a message by removing its middle.

    >>> shorten("abcdefghij", 7)
    'ab...ij'
    """
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


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


def setting(
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[Value, ...] | None = None,
) -> Any:
    """Create a dataclass field with its allowed range. It has no default, because all values are in `properties/`.

    In addition to the range, numbers must be finite, integers at most `LARGEST`, and lists without duplicates.

    Args:
        ge: smallest allowed value.
        gt: value that must be exceeded.
        le: largest allowed value.
        lt: value that must not be reached.
        choices: allowed values.
    """
    return field(metadata={"ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices})


def build_settings(cls: type[S], resolved: Resolved, *, extra_known: Iterable[str] = (), file: str = "") -> S:
    """Build an instance of the settings dataclass `cls` from resolved values.

    Args:
        cls: settings dataclass.
        resolved: values with their origins.
        extra_known: keys that belong to another settings dataclass of the same run.
        file: file to which the user should add missing keys, for error messages.

    Raises:
        SettingsError: a key is unknown, missing, of the wrong type or out of range. One message lists all such keys.
    """
    (settings,) = build_all_settings([cls], resolved, extra_known=extra_known, file=file)
    return settings


def build_all_settings(
    classes: Sequence[type[S]], resolved: Resolved, *, extra_known: Iterable[str] = (), file: str = ""
) -> list[S]:
    """Build instances of several settings dataclasses, and report the errors of all in one message.

    Args:
        classes: settings dataclasses.
        resolved: values with their origins.
        extra_known: keys that belong to another settings dataclass of the same run.
        file: file to which the user should add missing keys, for error messages.

    Raises:
        SettingsError: a key is unknown, missing, of the wrong type or out of range. One message lists all such keys.
    """
    known = {*extra_known, *(name for cls in classes for name in list_field_names(cls))}
    errors = describe_unknown_keys(resolved, known)
    missing = list(
        dict.fromkeys(name for cls in classes for name in list_field_names(cls) if name not in resolved.values)
    )
    if missing:
        where = file or f"a file of {find_properties()}"
        are, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        errors.append(f"{', '.join(missing)} {are} not set; add {them} to {where}")
    values: dict[str, Value] = {}
    for cls in classes:
        hints = get_type_hints(cls)
        for setting_field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if setting_field.name in resolved.values:
                try:
                    values[setting_field.name] = _coerce(
                        resolved.values[setting_field.name], hints[setting_field.name], setting_field.metadata
                    )
                except ValueError as error:
                    shown_value = shorten(repr(resolved.values[setting_field.name]))
                    errors.append(
                        f"{shorten(resolved.origin[setting_field.name])}: {setting_field.name} = {shown_value} {error}"
                    )
    if errors:
        raise SettingsError("; ".join(errors))
    return [_create_settings(cls, resolved, values) for cls in classes]


def _create_settings(cls: type[S], resolved: Resolved, values: Mapping[str, Value]) -> S:
    """Create a settings dataclass from checked values."""
    try:
        return cls(**{name: values[name] for name in list_field_names(cls)})
    except ValueError as error:  # from `__post_init__`: values that contradict each other
        raise SettingsError(f"{_find_origins(resolved, list_field_names(cls), str(error))}: {error}") from error


def _find_origins(resolved: Resolved, keys: Iterable[str], message: str) -> str:
    """Return the origins of the settings that a message names."""
    named = [key for key in keys if re.search(rf"\b{key}\b", message)]
    return " and ".join(dict.fromkeys(resolved.origin[key] for key in named)) or "settings"


def load_settings(cls: type[S], name: str) -> S:
    """Load settings from a single file of `properties/`, without other layers.

    Args:
        cls: settings dataclass.
        name: path of the file inside `properties/`.

    Raises:
        SettingsError: the file cannot be read, or a key is unknown, missing, of the wrong type or out of range.
    """
    path = find_properties() / name
    values = load_yaml(path)
    return build_settings(cls, Resolved(values, dict.fromkeys(values, str(path))), file=str(path))


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


def _coerce(value: Value, hint: Any, limits: Mapping[str, Any]) -> Value:
    """Convert a value to its annotated type and check its limits.

    Args:
        value: value from YAML.
        hint: annotated type.
        limits: arguments of `setting`.

    Raises:
        ValueError: the value is not allowed. The message says what is allowed; the caller adds key and origin.
    """
    if type(None) in get_args(hint):
        if value is None:
            return None
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError("must be a list")
        parts = tuple(_coerce(part, get_args(hint)[0], limits) for part in value)
        if len(set(parts)) < len(parts):
            raise ValueError("contains a value twice")
        return parts
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= LARGEST else math.inf
    if hint in (int, float, str, bool) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ValueError(f"must be of type {hint.__name__}")
    if hint is float and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if hint is int and abs(value) > LARGEST:
        raise ValueError(f"must be at most {LARGEST}")
    if limits.get("choices") is not None and value not in limits["choices"]:
        raise ValueError(f"must be one of {', '.join(map(str, limits['choices']))}")
    for name, sign, holds in (
        ("ge", ">=", operator.ge),
        ("gt", ">", operator.gt),
        ("le", "<=", operator.le),
        ("lt", "<", operator.lt),
    ):
        bound = limits.get(name)
        if bound is not None and not holds(value, bound):  # NaN fails every comparison
            raise ValueError(f"must be {sign} {bound}")
    return value


@dataclass(frozen=True)
class TrainSettings:
    """Training and model selection, the same for all models.

    Attributes:
        epochs: largest number of epochs.
        patience: number of evaluations without a better validation metric after which training stops.
        eval_every: number of epochs between two evaluations on the validation part.
        valid_metric: metric that selects the best epoch, such as N@20.
        batch_size: number of users, pairs or sequences in a step.
        optimizer: adam or adamw.
        learning_rate: learning rate of the optimizer.
        weight_decay: weight decay of the optimizer (L2 gradient for adam, decoupled for adamw).
        clip_norm: largest gradient norm; 0 turns clipping off.
        schedule: learning rate schedule: constant, cosine (to 0 over `epochs`) or exponential
            (`decay_rate ** (epoch / decay_epochs)`).
        decay_rate: decay rate of the exponential schedule.
        decay_epochs: number of epochs in which the exponential schedule multiplies the learning rate by `decay_rate`.
        warmup_epochs: number of epochs of linear warm-up at the start.
    """

    epochs: int = setting(ge=1, le=MOST_EPOCHS)
    patience: int = setting(ge=1)
    eval_every: int = setting(ge=1)
    valid_metric: str = setting()
    batch_size: int = setting(ge=1)
    optimizer: str = setting(choices=("adam", "adamw"))
    learning_rate: float = setting(gt=0, le=LARGEST_FLOAT)
    weight_decay: float = setting(ge=0, le=LARGEST_FLOAT)
    clip_norm: float = setting(ge=0, le=LARGEST_FLOAT)
    schedule: str = setting(choices=("constant", "cosine", "exponential"))
    decay_rate: float = setting(gt=0, le=1)
    decay_epochs: int = setting(ge=1, le=MOST_EPOCHS)
    warmup_epochs: int = setting(ge=0, le=MOST_EPOCHS)


@dataclass(frozen=True)
class PairSettings:
    """Sampling of training pairs, for models that train on pairs.

    Attributes:
        sampling: interactions (each once in an epoch) or users (sampled uniformly, then one of the user's items).
    """

    sampling: str = setting(choices=("interactions", "users"))


@dataclass(frozen=True)
class StepSettings:
    """Training steps of an LLM run, in addition to `TrainSettings`.

    Attributes:
        micro_batch_size: number of sequences in a forward pass. Gradients are summed over the whole batch, so it
            changes results only by rounding and dropout. It is halved when memory runs out.
        adam_beta2: decay rate of the optimizer's second moment.
        learning_rate_floor: smallest learning rate of the cosine schedule, as a fraction of `learning_rate`.
        examples_per_user: number of history prefixes sampled for each user in an epoch, if examples are random.
    """

    micro_batch_size: int = setting(ge=1)
    adam_beta2: float = setting(gt=0, lt=1)
    learning_rate_floor: float = setting(ge=0, le=1)
    examples_per_user: int = setting(ge=1)


@dataclass(frozen=True)
class EvalSettings:
    """Evaluation, the same for all models.

    Attributes:
        cutoffs: values of K in Recall@K and NDCG@K.
        eval_block_users: number of users scored at a time.
    """

    cutoffs: tuple[int, ...] = setting(ge=1, le=LARGEST_CUTOFF)
    eval_block_users: int = setting(ge=1)


@dataclass(frozen=True)
class LogSettings:
    """Logging of training curves.

    Attributes:
        loggers: loggers to use, any of tensorboard, wandb and mlflow.
    """

    loggers: tuple[str, ...] = setting(choices=("tensorboard", "wandb", "mlflow"))


@dataclass(frozen=True)
class ClusterSettings:
    """Resources of a run or a trial on a Ray cluster.

    Attributes:
        ray_cpus: number of CPUs, which is also the number of threads.
        ray_gpus: number of GPUs, possibly a fraction of one. Used only if the cluster has GPUs.
    """

    ray_cpus: float = setting(gt=0, le=1e4)
    ray_gpus: float = setting(ge=0, le=1e4)


# Sections of a model's file: values that override overall.yaml, values for single datasets, and named variants.
OVERRIDES, DATASETS, VARIANTS = SECTIONS = ("overrides", "datasets", "variants")
NEUTRAL_KEYS = frozenset({"loggers", "eval_block_users", "ray_cpus", "ray_gpus"})  # settings that change no result
HARNESS_SETTINGS: tuple[type[Any], ...] = (TrainSettings, EvalSettings, LogSettings, ClusterSettings)


def list_field_names(cls: type[Any]) -> tuple[str, ...]:
    """List the keys of a settings dataclass."""
    return tuple(setting_field.name for setting_field in dataclasses.fields(cls))
