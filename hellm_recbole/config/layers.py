"""Settings: strict YAML, layered, every value with its origin. No value is written in code; all are in `properties/`.

Layers, in order: `overall.yaml`, `model/<Name>.yaml` (these two may not set the same key), the model's
sections `overrides` and `datasets`, a preset, the model's variant, then `--set`; these may override. All faults are
collected and reported in one `SettingsError`.
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
LARGEST = 2**31 - 1  # of a whole number: what torch, numpy and C libraries take for sizes everywhere
LARGEST_FLOAT = 1e30  # of a number that is computed with in single precision
LARGEST_CUTOFF = 10**6  # of the K of Recall@K and NDCG@K
LARGEST_SEED = 2**64 - 1  # that torch takes
MOST_THREADS = 1024
MOST_EPOCHS = 10**6
Value = Any  # a YAML scalar, list or mapping


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number (YAML 1.1 reads it as a string) and a repeated key is an error.

    Whole numbers are decimal: YAML 1.1 reads 1:30 as 90 and 010 as 8; here they are strings, which no number may be.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} occurs twice", key_node.start_mark)
            seen.add(key)
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
_YAML_FAULTS = (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError)  # of a text that is no YAML


def find_properties() -> Path:
    """The folder `properties/`: inside the installed package, or beside it in a checkout.

    Raises:
        SettingsError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise SettingsError(f"no properties/overall.yaml in {package} or {package.parent}; install the package again")


def load_yaml(path: Path) -> dict[str, Value]:
    """Mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        SettingsError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"settings file {path} is not UTF-8 text; save it as UTF-8") from error
    return _as_mapping(text, str(path))


def parse_value(text: str, where: str) -> Value:
    """A YAML value given on the command line.

    >>> parse_value("1e-3", "--set"), parse_value("[a, b]", "--set"), parse_value("true", "--set")
    (0.001, ['a', 'b'], True)
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except _YAML_FAULTS as error:
        raise SettingsError(f"{shorten(where)}: {shorten(text)!r} is not a YAML value") from error


def _as_mapping(text: str, where: str) -> dict[str, Value]:
    try:
        loaded = yaml.load(text, Loader=_Loader)
    except _YAML_FAULTS as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "is not valid YAML"
        raise SettingsError(f"settings file {where}{line}: {problem}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise SettingsError(f"settings file {where} must hold `key: value` lines")
    return loaded


@dataclass(frozen=True)
class Resolved:
    """Merged values with the file or option each came from.

    Attributes:
        values: key -> value.
        origin: key -> where it was set.
    """

    values: Mapping[str, Value]
    origin: Mapping[str, str]

    def override(self, values: Mapping[str, Value], origin: str) -> Resolved:
        """A copy in which `values` win."""
        return Resolved({**self.values, **values}, {**self.origin, **dict.fromkeys(values, origin)})

    def subset(self, keys: Iterable[str]) -> Resolved:
        """Only the given keys, where set."""
        kept = [key for key in keys if key in self.values]
        return Resolved({k: self.values[k] for k in kept}, {k: self.origin[k] for k in kept})


def shorten(text: str, most: int = 200) -> str:
    """The text, its middle left out where it is too long for a message.

    >>> shorten("abcdefghij", 7)
    'ab...ij'
    """
    kept = (most - 3) // 2
    return text if len(text) <= most else f"{text[:kept]}...{text[-kept:]}"


def merge_layers(layers: Iterable[tuple[str, Mapping[str, Value]]]) -> Resolved:
    """Put layers side by side; a key may be set by one of them only.

    Raises:
        SettingsError: two layers set one key.
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
    """A dataclass field with its allowed range; it has no default, for values live in `properties/`.

    Whatever the range, numbers are finite, whole ones at most `LARGEST`, and a list names nothing twice.
    """
    return field(metadata={"ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices})


def build_settings(cls: type[S], resolved: Resolved, *, extra_known: Iterable[str] = (), file: str = "") -> S:
    """An instance of the settings dataclass `cls` from the resolved values.

    Args:
        cls: the dataclass.
        resolved: values with their origins.
        extra_known: keys that `cls` does not have and that belong to another dataclass of the same run.
        file: where missing keys are to be added; for messages.

    Raises:
        SettingsError: every unknown, missing, ill-typed and out-of-range key, in one message.
    """
    (built,) = build_all_settings([cls], resolved, extra_known=extra_known, file=file)
    return built


def build_all_settings(
    classes: Sequence[type[S]], resolved: Resolved, *, extra_known: Iterable[str] = (), file: str = ""
) -> list[S]:
    """`build_settings` of several dataclasses, with the faults of all of them in one message.

    Raises:
        SettingsError: every unknown, missing, ill-typed and out-of-range key.
    """
    known = {*extra_known, *(name for cls in classes for name in list_field_names(cls))}
    faults = describe_unknown_keys(resolved, known)
    missing = list(
        dict.fromkeys(name for cls in classes for name in list_field_names(cls) if name not in resolved.values)
    )
    if missing:
        where = file or f"a file of {find_properties()}"
        faults.append(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set; add to {where}")
    values: dict[str, Value] = {}
    for cls in classes:
        hints = get_type_hints(cls)
        for spec in dataclasses.fields(cls):  # type: ignore[arg-type]
            if spec.name in resolved.values:
                try:
                    values[spec.name] = _coerce(resolved.values[spec.name], hints[spec.name], spec.metadata)
                except ValueError as error:
                    shown = shorten(repr(resolved.values[spec.name]))
                    faults.append(f"{shorten(resolved.origin[spec.name])}: {spec.name} = {shown} {error}")
    if faults:
        raise SettingsError("; ".join(faults))
    return [_build(cls, resolved, values) for cls in classes]


def _build(cls: type[S], resolved: Resolved, values: Mapping[str, Value]) -> S:
    try:
        return cls(**{name: values[name] for name in list_field_names(cls)})
    except ValueError as error:  # from `__post_init__`: values that do not go together
        raise SettingsError(f"{_origins(resolved, list_field_names(cls), str(error))}: {error}") from error


def _origins(resolved: Resolved, keys: Iterable[str], message: str) -> str:
    """Where the settings that a message names were set."""
    named = [key for key in keys if re.search(rf"\b{key}\b", message)]
    return " and ".join(dict.fromkeys(resolved.origin[key] for key in named)) or "settings"


def load_settings(cls: type[S], name: str) -> S:
    """The settings in one file of `properties/` that stands alone, with no layer above it.

    Raises:
        SettingsError: every fault, in one message.
    """
    path = find_properties() / name
    values = load_yaml(path)
    return build_settings(cls, Resolved(values, dict.fromkeys(values, str(path))), file=str(path))


def describe_unknown_keys(resolved: Resolved, known: Iterable[str]) -> list[str]:
    """One clause for each key that nobody knows, with the nearest valid one."""
    valid = sorted(known)
    faults = []
    for key in resolved.values:
        if key in valid:
            continue
        near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys are {', '.join(valid)}"
        faults.append(f"{shorten(resolved.origin[key])}: unknown setting {shorten(key)!r}; {hint}")
    return faults


def _coerce(value: Value, hint: Any, limits: Mapping[str, Any]) -> Value:
    """`value` as the annotated type, checked against its limits.

    Raises:
        ValueError: with what is allowed; the caller adds where the value came from.
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
            raise ValueError("names something twice")
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
    """How every model is trained and selected.

    Attributes:
        epochs: most epochs.
        patience: evaluations without a better validation metric before training stops.
        eval_every: epochs between two evaluations on the validation part.
        valid_metric: the metric that selects, such as N@20.
        batch_size: users, pairs or sequences a step.
        optimizer: adam or adamw.
        learning_rate: of the optimizer.
        weight_decay: of the optimizer (L2 gradient for adam, decoupled for adamw).
        clip_norm: largest gradient norm; 0 does not clip.
        schedule: constant, cosine (to 0 over `epochs`) or exponential (`decay_rate ** (epoch / 50)`).
        decay_rate: of the exponential schedule.
        warmup_epochs: linear warm-up at the start.
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
    warmup_epochs: int = setting(ge=0, le=MOST_EPOCHS)


@dataclass(frozen=True)
class PairSettings:
    """How pairs are drawn, for models that train on pairs.

    Attributes:
        sampling: interactions (each once an epoch) or users (drawn uniformly, then one of the user's items).
    """

    sampling: str = setting(choices=("interactions", "users"))


@dataclass(frozen=True)
class StepSettings:
    """How the steps of an LLM row are taken, beside what `TrainSettings` says.

    Attributes:
        micro_batch_size: sequences read at a time; gradients of a whole batch are summed, so it changes no result but
            by rounding and dropout. It is halved when memory runs out.
        adam_beta2: decay of the optimizer's second moment.
        learning_rate_floor: least learning rate of the cosine, as a part of `learning_rate`.
        examples_per_user: prefixes of a history that are drawn for each user an epoch, where examples are random.
    """

    micro_batch_size: int = setting(ge=1)
    adam_beta2: float = setting(gt=0, lt=1)
    learning_rate_floor: float = setting(ge=0, le=1)
    examples_per_user: int = setting(ge=1)


@dataclass(frozen=True)
class EvalSettings:
    """How every model is evaluated.

    Attributes:
        cutoffs: the K of Recall@K and NDCG@K.
        eval_block_users: users scored at a time.
    """

    cutoffs: tuple[int, ...] = setting(ge=1, le=LARGEST_CUTOFF)
    eval_block_users: int = setting(ge=1)


@dataclass(frozen=True)
class LogSettings:
    """Where curves are logged.

    Attributes:
        loggers: any of tensorboard, wandb, mlflow.
    """

    loggers: tuple[str, ...] = setting(choices=("tensorboard", "wandb", "mlflow"))


@dataclass(frozen=True)
class ClusterSettings:
    """What a row or a trial asks of a Ray cluster.

    Attributes:
        ray_cpus: CPUs, which are also its threads.
        ray_gpus: GPUs or a part of one; only where the cluster has any.
    """

    ray_cpus: float = setting(gt=0, le=1e4)
    ray_gpus: float = setting(ge=0, le=1e4)


# Sections of a model's file: values instead of those of overall.yaml, values for single datasets, named variants.
OVERRIDES, DATASETS, VARIANTS = SECTIONS = ("overrides", "datasets", "variants")
NEUTRAL_KEYS = frozenset({"loggers", "eval_block_users", "ray_cpus", "ray_gpus"})  # cannot change a number
HARNESS_SETTINGS: tuple[type[Any], ...] = (TrainSettings, EvalSettings, LogSettings, ClusterSettings)


def list_field_names(cls: type[Any]) -> tuple[str, ...]:
    """Keys of a settings dataclass."""
    return tuple(spec.name for spec in dataclasses.fields(cls))
