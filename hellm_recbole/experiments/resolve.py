"""Resolve a request into checked run configs. Wrong models and settings are refused here, before anything runs."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from hellm_recbole.bridge.recbole_models import find_recbole_kind, list_recbole_models, read_recbole_settings
from hellm_recbole.config.harness_settings import (
    HARNESS_SETTINGS,
    NEUTRAL_KEYS,
    ClusterSettings,
    EvalSettings,
    LogSettings,
    PairSettings,
    StepSettings,
    TrainSettings,
)
from hellm_recbole.config.layers import (
    DATASETS,
    OVERRIDES,
    SECTIONS,
    VARIANTS,
    Resolved,
    describe_unknown_keys,
    merge_layers,
)
from hellm_recbole.config.limits import LARGEST
from hellm_recbole.config.request import Override
from hellm_recbole.config.settings import build_all_settings, list_field_names
from hellm_recbole.config.variants import list_variants
from hellm_recbole.config.yaml_files import Value, find_properties, load_yaml
from hellm_recbole.errors import MissingDependency, ModelError, SettingsError, shorten
from hellm_recbole.experiments.results import Search, label_run
from hellm_recbole.models.base import LLM, Family, ModelSpec, check_spec

T = TypeVar("T")
RECBOLE_PREFIX = "RecBole-"  # selects RecBole's model where ours has the same name, as in RecBole-LightGCN
HARNESS_KEYS = tuple(key for cls in HARNESS_SETTINGS for key in list_field_names(cls))


@dataclass(frozen=True)
class Tuned:
    """Values that a hyper-parameter search found for one model.

    Attributes:
        values: setting -> value that the search found.
        search: description of the search.
        origin: name of the file with these values.
    """

    values: Mapping[str, Value]
    search: Search
    origin: str


NOTHING_TUNED: Mapping[str, Tuned] = MappingProxyType({})


@dataclass(frozen=True)
class RunConfig:
    """The configuration of one run: one model on one dataset, with all settings resolved and checked.

    Attributes:
        model: name of the model or variant.
        family: group of the model in the tables.
        spec: entry of our model in the registry; None for a model of RecBole.
        recbole_name: RecBole's name of the model; None for our models.
        preset: name of the preset.
        resolved: values of all settings with their origins.
        train: settings of the training loop, the optimizer and the model selection.
        evaluation: cut-offs and number of users in a block.
        log: settings of the loggers.
        resources: CPUs and GPUs that the run requests from a Ray cluster.
        model_settings: settings of the model, in its own dataclass; for a model of RecBole, a dictionary.
        pairs: settings of pair sampling; None for models that do not train on pairs, and for those of RecBole.
        steps: settings of the training steps of an LLM model; None for other models.
        search: the hyper-parameter search that found the values of a tuned model; None for other models.
    """

    model: str
    family: Family
    spec: ModelSpec | None
    recbole_name: str | None
    preset: str
    resolved: Resolved
    train: TrainSettings
    evaluation: EvalSettings
    log: LogSettings
    resources: ClusterSettings
    model_settings: Any
    pairs: PairSettings | None
    steps: StepSettings | None = None
    search: Search | None = None

    @property
    def label(self) -> str:
        """Name of the run in tables and name of its folder."""
        return label_run(self.model, self.backbone, self.search is not None)

    @property
    def backbone(self) -> str | None:
        """Short name of the language model; None if the model has none."""
        return self.model_settings.backbone_label if self.family == LLM else None

    @property
    def pretrained_models(self) -> tuple[str, ...]:
        """Pretrained models whose item embeddings this run reads."""
        return self.model_settings.pretrained_models if self.family == LLM else ()

    def choose_features(self, features: Mapping[str, T]) -> dict[str, T]:
        """Select the modalities that the model reads.

        If the model's `modalities` setting names one that the dataset lacks, all are returned, and the model raises
        the error when it is built.

        Args:
            features: modality -> its features, for all modalities of the dataset.

        Returns:
            The same mapping with only the selected modalities.
        """
        if self.spec is None:
            return {}
        chosen = getattr(self.model_settings, "modalities", None)
        reads = self.spec.reads_features
        if not (hasattr(self.model_settings, "modalities") if reads is None else reads):
            return {}
        names = features if chosen is None or not set(chosen) <= features.keys() else chosen
        return {name: features[name] for name in names}

    @property
    def reads_texts(self) -> bool:
        """Whether the model reads the item texts."""
        if self.spec is None:
            return False
        reads = self.spec.reads_texts
        return bool(getattr(self.model_settings, "item_text_tokens", 0)) if reads is None else reads

    @property
    def source(self) -> Literal["hellm_recbole", "recbole"]:
        """The project that implements the model."""
        return "hellm_recbole" if self.spec is not None else "recbole"

    def reproducibility_settings(self) -> dict[str, Value]:
        """Return the settings that can change the numbers of the run."""
        return {key: value for key, value in sorted(self.resolved.values.items()) if key not in NEUTRAL_KEYS}


def list_presets() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in (find_properties() / "preset").glob("*.yaml"))


def resolve_runs(
    models: Sequence[str],
    dataset: str,
    registry: Mapping[str, ModelSpec],
    preset: str,
    overrides: Sequence[Override],
    tuned: Mapping[str, Tuned] = NOTHING_TUNED,
) -> list[RunConfig]:
    """Resolve the run configs of several models on one dataset.

    Args:
        models: names of models and variants.
        dataset: name of the dataset.
        registry: name -> entry of each of our models.
        preset: name of the preset.
        overrides: values that win over all others.
        tuned: model -> values that a hyper-parameter search found; they win over the preset.

    Raises:
        ModelError: a model is unknown; the message suggests the nearest name.
        SettingsError: a setting is wrong, or no model has the setting of an override.
    """
    configs = [_resolve_tuned(name, dataset, registry, preset, overrides, tuned.get(name)) for name in models]
    _refuse_unknown_overrides(configs, registry, overrides)
    return configs


def resolve_with_pretrained(
    models: Sequence[str],
    dataset: str,
    registry: Mapping[str, ModelSpec],
    preset: str,
    overrides: Sequence[Override],
    tuned: Mapping[str, Tuned] = NOTHING_TUNED,
) -> list[RunConfig]:
    """Resolve the run configs of several models, and of all pretrained models that they read.

    Pretrained models are included whether they were requested or not, and come before the LLM models that read them.
    They never have tuned values, even if a tuned run of the same model is requested.

    Args:
        models: names of models and variants.
        dataset: name of the dataset.
        registry: name -> entry of each of our models.
        preset: name of the preset.
        overrides: values that win over all others.
        tuned: model -> values that a hyper-parameter search found; they win over the preset.

    Raises:
        ModelError: a model is unknown, or an LLM model reads embeddings of a model that has none.
        SettingsError: a setting is wrong, or no model has the setting of an override.
    """
    requested = [_resolve_tuned(name, dataset, registry, preset, overrides, tuned.get(name)) for name in models]
    needed = dict.fromkeys(model for config in requested for model in config.pretrained_models)
    pretrained = [resolve_run(name, dataset, registry, preset, overrides) for name in needed]
    for config in pretrained:
        if config.spec is None or config.family == LLM:
            readable = ", ".join(name for name, spec in registry.items() if spec.family != LLM)
            raise ModelError(
                f"item_inputs or prefix_graph names {config.model}, but {config.model} has no item embeddings that "
                f"another model can read; name one of {readable}"
            )
    others = [config for config in requested if config.family != LLM and not is_pretrained_model(config, requested)]
    configs = (
        [*others, *pretrained, *(config for config in requested if config.family == LLM)] if pretrained else requested
    )
    _refuse_unknown_overrides(configs, registry, overrides)
    return configs


def _resolve_tuned(
    name: str,
    dataset: str,
    registry: Mapping[str, ModelSpec],
    preset: str,
    overrides: Sequence[Override],
    tuned: Tuned | None,
) -> RunConfig:
    if tuned is None:
        return resolve_run(name, dataset, registry, preset, overrides)
    tuned_values = [Override(name, key, value, tuned.origin) for key, value in tuned.values.items()]
    return replace(resolve_run(name, dataset, registry, preset, [*tuned_values, *overrides]), search=tuned.search)


def _refuse_unknown_overrides(
    configs: Sequence[RunConfig], registry: Mapping[str, ModelSpec], overrides: Sequence[Override]
) -> None:
    """Refuse an override whose setting no model has.

    Raises:
        SettingsError: there is such an override; the message suggests the nearest key.
    """
    for override in overrides:
        matching = [
            config
            for config in configs
            if override.model in (None, config.model, split_variant(config.model, registry)[0])
        ]
        if not any(override.key in config.resolved.values for config in matching):
            if override.model is not None and not matching:
                raise SettingsError(f"{override.origin}: {override.model} is not among the models of this run")
            known = {key for config in matching for key in config.resolved.values}
            unknown = Resolved({override.key: override.value}, {override.key: override.origin})
            raise SettingsError("; ".join(describe_unknown_keys(unknown, known)))


def is_pretrained_model(config: RunConfig, configs: Sequence[RunConfig]) -> bool:
    """Return whether an LLM run among `configs` reads the embeddings of this run. Tuned runs are never read."""
    return config.search is None and any(config.model in other.pretrained_models for other in configs)


def split_variant(name: str, registry: Mapping[str, ModelSpec]) -> tuple[str, str | None]:
    """Split a name into registered model and variant. A name without a variant gives (name, None)."""
    for model in registry:
        if name.startswith(f"{model}-") and name in list_variants(model):  # the first test saves reading most files
            return model, name.removeprefix(f"{model}-")
    return name, None


def resolve_run(
    name: str, dataset: str, registry: Mapping[str, ModelSpec], preset: str, overrides: Sequence[Override]
) -> RunConfig:
    """Resolve the run config of one model. Overrides of other models are ignored.

    Args:
        name: name of the model or variant.
        dataset: name of the dataset.
        registry: name -> entry of each of our models.
        preset: name of the preset.
        overrides: values that win over all others.

    Raises:
        ModelError: the model is unknown; the message suggests the nearest name.
        SettingsError: a setting is wrong.
    """
    base, variant = split_variant(name, registry)
    spec = registry.get(base)
    if spec is not None:
        check_spec(base, spec)
    recbole_name = None if spec is not None else _find_recbole_name(name, registry)
    own_file = find_properties() / "model" / f"{base}.yaml"
    own = load_yaml(own_file) if spec is not None or own_file.exists() else {}
    sections = {section: own.pop(section, None) or {} for section in SECTIONS}
    shared: dict[str, Value] = {}
    shared_overrides: dict[str, Value] = {}
    if spec is not None:
        own_keys = list_field_names(spec.settings)
        if spec.batches == "pairs":
            own_keys += list_field_names(PairSettings)
        family = spec.family
        if family == LLM:
            own_keys += list_field_names(StepSettings)
            shared = load_yaml(find_properties() / "llm.yaml")
            shared_overrides = shared.pop(OVERRIDES)
    else:
        assert recbole_name is not None
        defaults = read_recbole_settings(recbole_name)
        own_keys = tuple(defaults)
        family = "sequential" if find_recbole_kind(recbole_name) == "sequential" else "collaborative"
    overall = load_yaml(find_properties() / "overall.yaml")
    layers: list[tuple[str, Mapping[str, Value]]] = [("overall.yaml", overall), (f"model/{base}.yaml", own)]
    if shared:
        layers.insert(1, ("llm.yaml", shared))
    if spec is None:
        layers.append(
            (f"RecBole's {recbole_name}", {k: v for k, v in defaults.items() if k not in own and k not in overall})
        )
    resolved = merge_layers(layers).override(shared_overrides, f"llm.yaml, {OVERRIDES}")
    for section, layer in (
        (OVERRIDES, sections[OVERRIDES]),
        (f"{DATASETS}: {dataset}", sections[DATASETS].get(dataset, {})),
    ):
        resolved = resolved.override(layer, f"model/{base}.yaml, {section}")
    known = {*HARNESS_KEYS, *own_keys}
    overrides = [o for o in overrides if o.model in (name, base) or (o.model is None and o.key in known)]
    if family == LLM:
        chosen = [o.value for o in overrides if o.key == "llm"] or [resolved.values["llm"]]
        resolved = resolved.override(*_read_language_model_values(str(chosen[-1])))
    resolved = _apply_preset(resolved, preset, base, dataset, known)
    if variant is not None:
        resolved = resolved.override(sections[VARIANTS][variant], f"model/{base}.yaml, {VARIANTS}: {variant}")
    for override in overrides:
        resolved = resolved.override({override.key: override.value}, override.origin)
    own_classes: list[type[Any]] = [] if spec is None else [spec.settings]
    if spec is not None and spec.batches == "pairs":
        own_classes.append(PairSettings)
    if family == LLM:
        own_classes.append(StepSettings)
    classes = [*HARNESS_SETTINGS, *own_classes]
    built = dict(
        zip(classes, build_all_settings(classes, resolved, extra_known=known, file=str(own_file)), strict=True)
    )
    train, evaluation, log, resources = (built[cls] for cls in HARNESS_SETTINGS)
    if spec is not None:
        model_settings: Any = built[spec.settings]
    else:
        check_recbole_settings(resolved, defaults)
        model_settings = {key: resolved.values[key] for key in own_keys}
    metrics = [f"{kind}@{k}" for k in evaluation.cutoffs for kind in ("R", "N")]
    if train.valid_metric not in metrics:
        raise SettingsError(
            f"{resolved.origin['valid_metric']}: valid_metric is {train.valid_metric!r}; "
            f"with the given cutoffs it can be {', '.join(metrics)}"
        )
    return RunConfig(
        model=name,
        family=family,
        spec=spec,
        recbole_name=recbole_name,
        preset=preset,
        resolved=resolved,
        train=train,
        evaluation=evaluation,
        log=log,
        resources=resources,
        model_settings=model_settings,
        pairs=built.get(PairSettings),
        steps=built.get(StepSettings),
    )


_COUNT_KEYS = re.compile(r"(_size|_dim|_heads|^k|^MAX_ITEM_LIST_LENGTH)$")  # RecBole's settings that are at least 1
_PROBABILITY_KEYS = re.compile(r"(^|_)(dropout|dropout_prob|drop_prob|drop_ratio)$")  # those from 0 to below 1


def check_recbole_settings(resolved: Resolved, defaults: Mapping[str, Value]) -> None:
    """Refuse values of RecBole's settings that have another type than RecBole's default, or that no model can use.

    RecBole itself checks few of its settings before training, and never their ranges.

    Args:
        resolved: values of all settings with their origins.
        defaults: RecBole's default values.

    Raises:
        SettingsError: there are such values; the message lists them all.
    """
    faults = []
    for key, default in defaults.items():
        value = resolved.values[key]
        problem = None if value == default else _describe_recbole_fault(key, value, default)
        if problem is not None:
            faults.append(f"{shorten(resolved.origin[key])}: {key} = {shorten(repr(value))} {problem}")
    heads, width = resolved.values.get("n_heads"), resolved.values.get("hidden_size")
    if not faults and isinstance(heads, int) and isinstance(width, int) and width % heads:
        faults.append(f"{resolved.origin['n_heads']}: hidden_size = {width} must be a multiple of n_heads = {heads}")
    if faults:
        raise SettingsError("; ".join(faults))


def _describe_recbole_fault(key: str, value: Value, default: Value) -> str | None:
    """Describe what is wrong with the value of a setting of RecBole. Return None if no fault is known."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= (LARGEST if isinstance(value, int) else sys.float_info.max):  # NaN fails
            return "must be a finite number" if isinstance(value, float) else f"must be at most {LARGEST}"
        if _COUNT_KEYS.search(key) and (not isinstance(value, int) or value < 1):
            return "must be a whole number of at least 1"
        if _PROBABILITY_KEYS.search(key) and not 0 <= value < 1:
            return "must be >= 0 and < 1"
    for kinds, name in ((bool, "true or false"), (int | float, "a number"), (str, "a text"), (list, "a list")):
        if isinstance(default, kinds):
            fits = isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))
            return None if fits else f"must be {name}, like RecBole's default {shorten(repr(default), 40)}"
    return None


def _read_language_model_values(llm: str) -> tuple[dict[str, Value], str]:
    """Read the settings for a known language model, and return them with the name of their file.

    For an unknown language model both are empty.
    """
    for path in sorted((find_properties() / "llm").glob("*.yaml")):
        content = load_yaml(path)
        if llm in content["names"]:
            return content["values"], f"llm/{path.name}"
    return {}, ""


def _apply_preset(resolved: Resolved, preset: str, model: str, dataset: str, known: Iterable[str]) -> Resolved:
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
    path = find_properties() / "preset" / f"{preset}.yaml"
    if not path.exists():
        near = difflib.get_close_matches(preset, list_presets(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known presets are {', '.join(list_presets())}"
        raise SettingsError(f"unknown preset {preset!r}; {hint}")
    layer = load_yaml(path)
    extra = sorted(layer.keys() - {"overall", "models", DATASETS})
    if extra:
        raise SettingsError(f"{path}: unknown section {extra[0]!r}; a preset has overall, models and {DATASETS}")
    allowed = set(known)
    shared = {key: value for key, value in (layer.get("overall") or {}).items() if key in allowed}
    of_model = (layer.get("models") or {}).get(model) or {}
    on_dataset = ((layer.get(DATASETS) or {}).get(dataset) or {}).get(model) or {}
    file = f"preset/{preset}.yaml"
    return (
        resolved.override(shared, file).override(of_model, file).override(on_dataset, f"{file}, {DATASETS}: {dataset}")
    )


def _find_recbole_name(name: str, registry: Mapping[str, ModelSpec]) -> str:
    """Find RecBole's name of a model that is not in our registry.

    Raises:
        ModelError: RecBole does not have the model either.
        MissingDependency: RecBole is not installed.
    """
    bare = name.removeprefix(RECBOLE_PREFIX)
    try:
        if find_recbole_kind(bare) is not None:
            return bare
        names = [*registry, *(name for model in registry for name in list_variants(model)), *list_recbole_models()]
    except MissingDependency as error:
        raise MissingDependency(f"{name} is not a model of this project ({', '.join(registry)}); {error}") from error
    by_lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower[near[0]]!r}?" if near else "`run.py --list` shows all names"
    raise ModelError(f"unknown model {name!r}; {hint}")


def locate_run(output: Path, dataset: str, config: RunConfig, seed: int) -> Path:
    """Return the folder of a run: `<output>/<dataset>/<label>/<seed>`."""
    return output / dataset / config.label / str(seed)
