"""Resolve a request into checked run configs. Unknown models and wrong settings are refused here.

Modalities are compared with those of the dataset when a model is built.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from hellm_recbole.bridge.recbole_models import (
    find_recbole_kind,
    read_recbole_settings,
    refuse_own_training,
)
from hellm_recbole.config.changed_names import parse_changed_name
from hellm_recbole.config.harness_settings import (
    HARNESS_SETTINGS,
    PairSettings,
    StepSettings,
    refuse_unknown_metric,
)
from hellm_recbole.config.layers import Resolved, describe_unknown_keys
from hellm_recbole.config.model_layers import RunName, merge_model_layers, split_variant
from hellm_recbole.config.recbole_keys import choose_length_key
from hellm_recbole.config.request import Override
from hellm_recbole.config.row_names import parse_combined_name
from hellm_recbole.config.settings import build_all_settings, list_field_names
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.automatic_batch import grow_batch
from hellm_recbole.experiments.changed_features import change_config, find_change, refuse_own_settings
from hellm_recbole.experiments.combined_config import build_combined_config, separate_combined
from hellm_recbole.experiments.fitted_config import FITTED_SETTINGS, FittedRunConfig, drop_unread, is_for_training
from hellm_recbole.experiments.recbole_names import find_recbole_name
from hellm_recbole.experiments.recbole_settings import check_recbole_settings
from hellm_recbole.experiments.results import Search
from hellm_recbole.experiments.run_config import (
    LLMRunConfig,
    OwnRunConfig,
    RecBoleRunConfig,
    RunConfig,
    TrainedRunConfig,
)
from hellm_recbole.experiments.scoring_config import ScoringRunConfig
from hellm_recbole.experiments.unread_settings import refuse_unread_override
from hellm_recbole.models.base import LLM, Family, ModelSpec, check_spec
from hellm_recbole.types import name_user_table

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
class Resolver:
    """Resolves the run configs of a command on one dataset, each of them once.

    Attributes:
        dataset: name of the dataset.
        registry: name -> entry of each of our models.
        preset: name of the preset.
        overrides: values that win over all others.
        external: models whose embeddings come from files, so that no run of theirs is needed.
        interactions: number of training interactions, for `batch_size: auto`; see `automatic_batch.grow_batch`.
    """

    dataset: str
    registry: Mapping[str, ModelSpec]
    preset: str
    overrides: Sequence[Override]
    external: Collection[str] = ()
    interactions: int | None = None
    _configs: dict[str, RunConfig] = field(default_factory=dict, init=False, repr=False, compare=False)

    def resolve(self, model: str, tuned: Tuned | None = None) -> RunConfig:
        """Resolve the run config of one model or variant.

        Args:
            model: name of the model or variant.
            tuned: values that a hyper-parameter search found; they win over the preset.

        Raises:
            ModelError: the model is unknown; the message suggests the nearest name.
            SettingsError: a setting is wrong.
        """
        if tuned is not None:
            values = [Override(model, key, value, tuned.origin) for key, value in tuned.values.items()]
            found = resolve_run(model, self.dataset, self.registry, self.preset, [*values, *self.overrides])
            return replace(grow_batch(found, self.interactions), search=tuned.search)
        if model not in self._configs:
            self._configs[model] = self._resolve_untuned(model)
        return self._configs[model]

    def _resolve_untuned(self, model: str) -> RunConfig:
        """Resolve the run config of a model, a variant, a combined row, or a row with changed features."""
        is_own = model in self.registry or split_variant(model, self.registry)[1] is not None
        combined = None if is_own else parse_combined_name(model)
        if combined is None:
            changed = None if is_own else parse_changed_name(model)
            if changed is not None:
                refuse_own_settings(changed, self.overrides)
                return change_config(changed, self.resolve(changed.row))
            found = resolve_run(model, self.dataset, self.registry, self.preset, self.overrides)
            return grow_batch(found, self.interactions)
        rows = [self.resolve(row) for row in combined.rows]
        if changed_rows := [row.model for row in rows if find_change(row) is not None]:
            raise ModelError(f"{model}: {changed_rows[0]} has changed features and cannot be combined with other rows")
        return build_combined_config(combined, rows, self.preset, self.overrides)

    def resolve_with_pretrained(
        self, models: Sequence[str], tuned: Mapping[str, Tuned] = NOTHING_TUNED
    ) -> list[RunConfig]:
        """Resolve the run configs of several models, and of all runs that they read.

        Runs that a combined run needs are included whether they were requested or not, and come before it. So are
        pretrained models, which come before the LLM models that read them. None of these ever has tuned values, even if
        a tuned run of the same model is requested. Models whose embeddings come from files are not included for them.

        Args:
            models: names of models and variants.
            tuned: model -> values that a hyper-parameter search found.

        Raises:
            ModelError: a model is unknown, or an LLM model reads embeddings of a model that has none.
            SettingsError: a setting is wrong, or no model has the setting of an override.
        """
        requested, combined = separate_combined(self.resolve(name, tuned.get(name)) for name in models)
        needed = dict.fromkeys(model for config in requested for model in config.pretrained_models)
        pretrained = [self.resolve(name) for name in needed if name not in self.external]
        for config in pretrained:
            if not config.has_item_embeddings:
                readable = ", ".join(name for name, spec in self.registry.items() if spec.has_item_embeddings)
                raise ModelError(
                    f"item_inputs or prefix_graph names {config.model}, but {config.model} has no item embeddings that "
                    f"another model can read; name one of {readable}"
                )
        _refuse_missing_user_embeddings(requested, pretrained, self.external)
        trained = _order_pretrained_first(requested, pretrained, self.external) if pretrained else requested
        configs = [*trained, *combined]
        self.refuse_unknown_overrides(configs)
        return configs

    def refuse_unknown_overrides(self, configs: Sequence[RunConfig]) -> None:
        """Refuse an override whose setting none of these runs has, or reads.

        Raises:
            SettingsError: there is such an override; the message suggests the nearest key, or names the setting that
                leaves it without effect.
        """
        for override in self.overrides:
            matching = [
                config for config in configs if override.model in (None, config.model, *self._list_bases(config))
            ]
            found = [config.resolved.values for config in matching]
            has_key = any(choose_length_key(override.key, values) in values for values in found)
            if not has_key and not is_for_training(override, matching):
                if override.model is not None and not matching:
                    raise SettingsError(f"{override.origin}: {override.model} is not among the models of this run")
                known = {key for config in matching for key in config.resolved.values}
                unknown = Resolved({override.key: override.value}, {override.key: override.origin})
                raise SettingsError("; ".join(describe_unknown_keys(unknown, known)))
            if has_key:
                refuse_unread_override(override, matching)

    def _list_bases(self, config: RunConfig) -> list[str]:
        """List the rows whose overrides a run has, too: its model, and the row that its features were changed for."""
        change = find_change(config)
        row = config.model if change is None else change.row
        return [row, split_variant(row, self.registry)[0]]


def resolve_runs(
    models: Sequence[str],
    dataset: str,
    registry: Mapping[str, ModelSpec],
    preset: str,
    overrides: Sequence[Override],
) -> list[RunConfig]:
    """Resolve the run configs of several models on one dataset, without the pretrained models that they read.

    The arguments are those of `resolve_run`, for several names.

    Raises:
        ModelError: a model is unknown; the message suggests the nearest name.
        SettingsError: a setting is wrong, or no model has the setting of an override.
    """
    resolver = Resolver(dataset, registry, preset, overrides)
    configs = [resolver.resolve(name) for name in models]
    resolver.refuse_unknown_overrides(configs)
    return configs


def resolve_own_run(
    model: str, dataset: str, registry: Mapping[str, ModelSpec], preset: str, overrides: Sequence[Override]
) -> OwnRunConfig:
    """Resolve the run config of one of our models, see `resolve_runs`.

    Raises:
        ModelError: the model is unknown, or is one of RecBole's.
        SettingsError: a setting is wrong, or the model does not have the setting of an override.
    """
    (config,) = resolve_runs([model], dataset, registry, preset, overrides)
    if not isinstance(config, OwnRunConfig):
        raise ModelError(f"{model} is not a model of this project; the models are {', '.join(registry)}")
    return config


def is_pretrained_model(config: RunConfig, configs: Iterable[RunConfig], external: Collection[str] = ()) -> bool:
    """Return whether an LLM run among `configs` reads the embeddings of this run.

    Tuned runs are never read, and neither are runs of `external` models, whose embeddings come from files.
    """
    is_read = any(config.model in other.pretrained_models for other in configs)
    return is_read and config.search is None and config.model not in external


def _refuse_missing_user_embeddings(
    requested: Iterable[RunConfig], pretrained: Iterable[RunConfig], external: Collection[str]
) -> None:
    """Refuse LLM models that read user embeddings of a model that has none, or whose embeddings come from a file.

    Raises:
        ModelError: there is such a model.
    """
    lacking = {name_user_table(config.model): config.model for config in pretrained if not config.has_user_embeddings}
    from_files = {name_user_table(model): model for model in external}
    for config in requested:
        for table in config.pretrained_tables:
            if table in from_files:
                raise ModelError(
                    f"{config.model}: prompt has a place {{user}}, but the embeddings of {from_files[table]} come "
                    "from a file, which has items only; take {user} out of the prompt, or train the model"
                )
            if table in lacking:
                raise ModelError(
                    f"{config.model}: prompt has a place {{user}}, but {lacking[table]} has no embeddings of users, "
                    "for its vector of a user depends on the history; take {user} out of the prompt, or name a model "
                    "with user embeddings in prefix_graph or first in item_inputs"
                )


def _order_pretrained_first(
    requested: Sequence[RunConfig], pretrained: Sequence[RunConfig], external: Collection[str]
) -> list[RunConfig]:
    """Order runs so that pretrained models come before the LLM models that read them.

    Args:
        requested: runs that the user named.
        pretrained: runs of the pretrained models that they read; some may be among `requested`, too.
        external: models whose embeddings come from files.
    """
    others = [
        config for config in requested if config.family != LLM and not is_pretrained_model(config, requested, external)
    ]
    return [*others, *pretrained, *(config for config in requested if config.family == LLM)]


def resolve_run(
    name: str, dataset: str, registry: Mapping[str, ModelSpec], preset: str, overrides: Sequence[Override]
) -> TrainedRunConfig:
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
    run_name = RunName(name, *split_variant(name, registry))
    if run_name.base in registry:
        return _resolve_own_run(run_name, registry[run_name.base], dataset, preset, overrides)
    return _resolve_recbole_run(run_name, find_recbole_name(name, registry), dataset, preset, overrides)


def _resolve_own_run(
    name: RunName, spec: ModelSpec, dataset: str, preset: str, overrides: Sequence[Override]
) -> OwnRunConfig:
    """Resolve the run config of one of our models.

    Raises:
        ModelError: the model's entry in the registry is not complete.
        SettingsError: a setting is wrong.
    """
    check_spec(name.base, spec)
    harness = FITTED_SETTINGS if spec.is_fitted else HARNESS_SETTINGS
    known = {key for cls in (*harness, *spec.settings_classes) for key in list_field_names(cls)}
    resolved = merge_model_layers(name, dataset, preset, overrides, known, reads_language_model=spec.family == LLM)
    if spec.is_fitted:
        resolved = drop_unread(resolved, known)
    built = _build_settings(spec.settings_classes, resolved, known, name, harness)
    fields = {
        **_collect_shared_fields(name, spec.family, preset, resolved, built, harness),
        "spec": spec,
        "model_settings": built[spec.settings],
        "pairs": built.get(PairSettings),
    }
    if spec.is_fitted:
        return FittedRunConfig(**fields)
    if spec.scores_items:
        return ScoringRunConfig(**fields)
    return LLMRunConfig(**fields, steps=built[StepSettings]) if spec.family == LLM else OwnRunConfig(**fields)


def _resolve_recbole_run(
    name: RunName, recbole_name: str, dataset: str, preset: str, overrides: Sequence[Override]
) -> RecBoleRunConfig:
    """Resolve the run config of one of RecBole's models.

    Raises:
        SettingsError: a setting is wrong.
    """
    defaults = read_recbole_settings(recbole_name)
    known = {*HARNESS_KEYS, *defaults}
    resolved = merge_model_layers(
        name, dataset, preset, overrides, known, defaults=defaults, defaults_origin=f"RecBole's {recbole_name}"
    )
    built = _build_settings([], resolved, known, name)
    check_recbole_settings(resolved, defaults)
    refuse_own_training(resolved, recbole_name)
    family: Family = "sequential" if find_recbole_kind(recbole_name) == "sequential" else "collaborative"
    return RecBoleRunConfig(**_collect_shared_fields(name, family, preset, resolved, built), recbole_name=recbole_name)


def _build_settings(
    classes: Sequence[type[Any]],
    resolved: Resolved,
    known: Iterable[str],
    name: RunName,
    harness: Sequence[type[Any]] = HARNESS_SETTINGS,
) -> dict[type[Any], Any]:
    """Build the settings of the harness and those of a model: class -> instance.

    Args:
        classes: settings classes of the model.
        resolved: values of all settings with their origins.
        known: keys of all settings that the run has.
        name: name of the model, whose file a message names.
        harness: classes of the settings of the harness.

    Raises:
        SettingsError: a setting is wrong; the message lists all that are.
    """
    every = [*harness, *classes]
    return dict(zip(every, build_all_settings(every, resolved, extra_known=known, file=str(name.file)), strict=True))


def _collect_shared_fields(
    name: RunName,
    family: Family,
    preset: str,
    resolved: Resolved,
    built: Mapping[type[Any], Any],
    harness: Sequence[type[Any]] = HARNESS_SETTINGS,
) -> dict[str, Any]:
    """Check and collect the fields that run configs of all types have.

    Raises:
        SettingsError: the validation metric is not computed with the given cut-offs.
    """
    train, evaluation, log, resources = (built[cls] for cls in harness)
    refuse_unknown_metric(train.valid_metric, evaluation.cutoffs, resolved)
    return {
        "model": name.name,
        "family": family,
        "preset": preset,
        "resolved": resolved,
        "train": train,
        "evaluation": evaluation,
        "log": log,
        "resources": resources,
    }
