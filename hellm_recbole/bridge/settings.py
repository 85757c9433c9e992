"""Settings of a run in RecBole's configuration: our defaults under RecBole's keys, and back to our settings.

A model of ours has the same settings as in `benchmarks/run.py`, from the same files. Training settings that RecBole has
too are called by RecBole's names (`train_batch_size`, `stopping_step`, ...). A user may write either name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hellm_recbole.bridge.recbole_models import read_recbole_settings, refuse_own_training
from hellm_recbole.bridge.register import SEQUENTIAL, OfferedModel, describe_unknown_variant, list_offered_models
from hellm_recbole.config.harness_settings import (
    EvalSettings,
    OnePassSettings,
    PairSettings,
    StepSettings,
    TrainSettings,
)
from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.model_layers import RunName, merge_model_layers
from hellm_recbole.config.recbole_keys import (
    EVALUATION,
    MAX_HISTORY,
    MAX_ITEM_LIST_LENGTH,
    RECBOLE_NAMES,
    from_recbole,
    to_recbole,
)
from hellm_recbole.config.request import Override
from hellm_recbole.config.settings import Settings, build_all_settings, list_field_names
from hellm_recbole.config.variants import list_variants
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.errors import SettingsError
from hellm_recbole.models.base import LLM

ORIGIN = "RecBole's configuration"
PRESET, VARIANT = "preset", "variant"  # keys of RecBole's configuration that only our models have
_LENGTHS = (MAX_HISTORY, MAX_ITEM_LIST_LENGTH)


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run, built from RecBole's configuration.

    Attributes:
        train: settings of the training loop, the optimizer and the model selection; only the last for fitted models.
        evaluation: cut-offs and number of users in a block.
        values: all settings under our keys.
        model: settings of one of our models; None for RecBole's own.
        pairs: settings of pair sampling; None for models that do not train on pairs.
        steps: settings of the training steps; None for other than LLM models.
    """

    train: TrainSettings | OnePassSettings
    evaluation: EvalSettings
    values: Mapping[str, Value]
    model: Any = None
    pairs: PairSettings | None = None
    steps: StepSettings | None = None


def add_defaults(config: Any, offered: OfferedModel, dataset: str) -> None:
    """Add the defaults of a model to a RecBole configuration that is being built, and translate the user's keys.

    The values as the user gave them stay in `config.hellm_given`.

    Args:
        config: RecBole's `Config`, after it has read its own defaults.
        offered: the model.
        dataset: name of the dataset.

    Raises:
        SettingsError: the preset, the variant or a setting of a named model is unknown, or two keys contradict.
    """
    config.hellm_given = given = dict(config.external_config_dict)
    resolved = resolve_defaults(offered, dataset, given)
    values = dict(to_recbole(key, resolved.values[key]) for key in list_keys(offered))
    if offered.spec is not None:
        values["train_neg_sample_args"] = None  # the harness draws them
    if offered.family == SEQUENTIAL:
        values["repeatable"] = True
        values.setdefault("MAX_ITEM_LIST_LENGTH", values.get("max_history"))
    internal = config.internal_config_dict
    fields = [given.get(key) or internal[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")]
    if internal["load_col"] == {"inter": fields[:2]}:  # RecBole's default, which would leave out the times
        values["load_col"] = {"inter": fields}
    internal.update({**EVALUATION, **values})
    config.external_config_dict = translate_given(offered, given)


def list_keys(offered: OfferedModel) -> list[str]:
    """List our keys of all settings that change the result of a run of this model."""
    own = read_recbole_settings(offered.base) if offered.spec is None else ()
    every: list[type[Settings]] = [choose_train_settings(offered), EvalSettings]
    every += () if offered.spec is None else offered.spec.settings_classes
    return list(dict.fromkeys((*(key for cls in every for key in list_field_names(cls)), *own)))


def choose_train_settings(offered: OfferedModel) -> type[TrainSettings | OnePassSettings]:
    """Choose the class of the settings of training and selection: fitted models have only those of selection."""
    return OnePassSettings if offered.spec is not None and offered.spec.is_fitted else TrainSettings


def resolve_defaults(offered: OfferedModel, dataset: str, given: Mapping[str, Value]) -> Resolved:
    """Merge the settings files of a model for a dataset, with the preset and the variant that the user chose.

    Args:
        offered: the model.
        dataset: name of the dataset.
        given: values that the user gave to RecBole.

    Raises:
        SettingsError: the preset or the variant is unknown.
    """
    variant = given.get(VARIANT) or offered.variant
    if offered.variant not in (None, variant):
        raise SettingsError(f"{ORIGIN}: variant = {variant!r} contradicts the model {offered.recbole_name}")
    if variant is not None and f"{offered.base}-{variant}" not in list_variants(offered.base):
        raise SettingsError(f"{ORIGIN}: {describe_unknown_variant(offered, variant)}")
    name = RunName(offered.base if variant is None else f"{offered.base}-{variant}", offered.base, variant)
    return merge_model_layers(
        name,
        dataset,
        str(given.get(PRESET) or "paper"),
        [Override(None, "llm", given["llm"], ORIGIN)] if "llm" in given else [],
        list_keys(offered),
        reads_language_model=offered.spec is not None and offered.spec.family == LLM,
        defaults=read_recbole_settings(offered.base) if offered.spec is None else None,
        defaults_origin=f"RecBole's {offered.base}",
    )


def translate_given(offered: OfferedModel, given: Mapping[str, Value]) -> dict[str, Value]:
    """Translate what the user gave: values of a named model (`SASRec.dropout`), and our names of RecBole's keys.

    Args:
        offered: the model.
        given: values that the user gave to RecBole.

    Raises:
        SettingsError: a named model does not exist or lacks the setting, or both names of a key have different values.
    """
    values = {key: value for key, value in given.items() if "." not in key}
    for key in given.keys() - values:
        model, _, bare = key.rpartition(".")
        if model not in {name for one in list_offered_models().values() for name in (one.name, one.base)}:
            raise SettingsError(f"{ORIGIN}: {key} names the model {model}, which does not exist")
        if model in (offered.name, offered.base):
            _refuse_unknown_setting(offered, key, bare)
            values.pop(to_recbole(bare, given[key])[0], None)
            values[bare] = given[key]
    translated = dict(values)
    for key in RECBOLE_NAMES.keys() & values.keys():
        recbole_key, value = to_recbole(key, translated.pop(key))
        if recbole_key in values and values[recbole_key] != value:
            raise SettingsError(
                f"{ORIGIN}: {key} = {values[key]} and {recbole_key} = {values[recbole_key]} are names of the same "
                "setting; give one of them"
            )
        translated[recbole_key] = value
    if isinstance(translated.get("valid_metric"), str):
        translated["valid_metric"] = to_recbole("valid_metric", translated["valid_metric"])[1]
    if offered.spec is not None and offered.family == SEQUENTIAL:
        lengths = [translated[key] for key in _LENGTHS if key in translated]
        if len(lengths) == 2 and lengths[0] != lengths[1]:
            raise SettingsError(
                f"{ORIGIN}: MAX_ITEM_LIST_LENGTH = {lengths[1]} but {offered.recbole_name} reads max_history = "
                f"{lengths[0]} items; give one of them"
            )
        translated |= dict.fromkeys(_LENGTHS, lengths[0]) if lengths else {}
    return translated


def _refuse_unknown_setting(offered: OfferedModel, key: str, bare: str) -> None:
    """Refuse a value of a named model that has no such setting.

    Raises:
        SettingsError: the model has no such setting; the message names the nearest one.
    """
    known = [*list_keys(offered), *RECBOLE_NAMES.values()]
    if bare not in known:
        near = difflib.get_close_matches(bare, known, n=1)
        raise SettingsError(f"{ORIGIN}: {key}: unknown setting" + (f"; did you mean {near[0]!r}?" if near else ""))


def _refuse_sample(evaluation: EvalSettings, resolved: Resolved) -> None:
    """Refuse a sample of validation users, which RecBole's trainer does not draw.

    Raises:
        SettingsError: `valid_users` is not all.
    """
    if evaluation.valid_users != "all":
        raise SettingsError(
            f"{resolved.origin['valid_users']}: valid_users is {evaluation.valid_users}, and RecBole's trainer "
            "validates on all users; leave it at all, or train with run.py"
        )


def build_run_settings(config: Any, offered: OfferedModel) -> RunSettings:
    """Build the settings of a run from RecBole's final configuration.

    Raises:
        SettingsError: settings have the wrong type, are out of range or are not supported; the message lists them.
    """
    values, origins = {}, {}
    for key in list_keys(offered):
        recbole_key = RECBOLE_NAMES.get(key, key)
        values[key] = from_recbole(key, config[recbole_key], ORIGIN)
        origins[key] = ORIGIN if recbole_key == key else f"{ORIGIN} ({recbole_key})"
    negatives = config["train_neg_sample_args"]
    resolved = Resolved(values, origins)
    spec = offered.spec
    if spec is None:
        if negatives["distribution"] == "none":
            values["train_neg_sample_args"] = None
        classes: list[type[Any]] = [TrainSettings, EvalSettings]
        train, evaluation = build_all_settings(classes, resolved, extra_known=values)
        _refuse_sample(evaluation, resolved)
        refuse_own_training(resolved, offered.base)
        return RunSettings(train, evaluation, values)
    _refuse_other_negatives(negatives, offered)
    classes = [choose_train_settings(offered), EvalSettings, *spec.settings_classes]
    built: dict[Any, Any] = dict(zip(classes, build_all_settings(classes, resolved), strict=True))
    _refuse_sample(built[EvalSettings], resolved)
    return RunSettings(
        built[classes[0]],
        built[EvalSettings],
        values,
        built[spec.settings],
        built.get(PairSettings),
        built.get(StepSettings),
    )


def _refuse_other_negatives(negatives: Mapping[str, Value], offered: OfferedModel) -> None:
    """Refuse negative sampling that our models do not have.

    Raises:
        SettingsError: it is not one uniform negative for a model of pairs, or the model samples none.
    """
    if negatives["distribution"] == "none":
        return
    if offered.family == SEQUENTIAL:
        raise SettingsError(f"{ORIGIN}: {offered.name} samples no negatives; remove train_neg_sample_args")
    if (negatives["distribution"], negatives["sample_num"], negatives["dynamic"]) != ("uniform", 1, False):
        raise SettingsError(
            f"{ORIGIN}: {offered.name} samples one uniform negative for each positive; remove train_neg_sample_args"
        )
