"""The configuration of a combined run, which trains nothing and combines the scores of finished runs on validation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from hellm_recbole.config.combined_settings import (
    KIND_SETTINGS,
    SHARED_SETTINGS,
    FusionSettings,
    PriorSettings,
    SelectionSettings,
    TransitionSettings,
    merge_combined_layers,
)
from hellm_recbole.config.harness_settings import refuse_unknown_metric
from hellm_recbole.config.request import Override
from hellm_recbole.config.row_names import CombinedKind, CombinedName
from hellm_recbole.config.settings import build_all_settings, list_field_names
from hellm_recbole.config.yaml_files import find_properties
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.evaluation.weight_search import Point, list_product, list_simplex
from hellm_recbole.experiments.run_config import RunConfig, TrainedRunConfig
from hellm_recbole.identity.code import digest_model_code, digest_module
from hellm_recbole.models.base import FAMILIES, Family

T = TypeVar("T")

TEXT_KNN, ITEM_KNN, TRANSITION = PRIORS = ("text-kNN", "ItemKNN", "transitions")
MOST_POINTS = 10_000  # the ranks of all points are kept until the end: 8 bytes a point and validation target
_ALONE: Family = "sequential"  # family of priors without a row: they read histories
_CODE = (
    "hellm_recbole.models.priors",
    "hellm_recbole.evaluation.combined_scores",
    "hellm_recbole.evaluation.weight_search",
)
_CODE_WITHOUT_IMPORTS = (
    "hellm_recbole.experiments.combined_run",
    "hellm_recbole.experiments.component_scores",
    "hellm_recbole.experiments.combined_config",
)


@dataclass(frozen=True, kw_only=True)
class CombinedRunConfig(RunConfig):
    """The configuration of a combined run.

    Attributes:
        kind: what is combined: transitions (alone), priors (on a row, or alone) or a fusion of rows.
        rows: run configs of the runs that are combined, in the order of the name.
        selection: metric that selects the weights.
        settings: settings of this kind of row.
    """

    kind: CombinedKind
    rows: tuple[RunConfig, ...]
    selection: SelectionSettings
    settings: TransitionSettings | PriorSettings | FusionSettings

    @property
    def combined_runs(self) -> tuple[RunConfig, ...]:
        """Runs whose scores this run combines."""
        return self.rows

    @property
    def valid_metric(self) -> str:
        """Metric on the validation part that selects the weights."""
        return self.selection.valid_metric

    @property
    def backbone(self) -> str | None:
        """Short names of the language models of all combined runs, with + between them; None if there is none."""
        names = dict.fromkeys(name for row in self.rows if (name := row.backbone) is not None)
        return "+".join(names) or None

    @property
    def source(self) -> Literal["hellm_recbole", "recbole"]:
        """The project that implements the combination; RecBole if it implements one of the rows."""
        return "recbole" if any(row.source == "recbole" for row in self.rows) else "hellm_recbole"

    @property
    def name_in_source(self) -> str:
        """Name of the row; of its only row if it is one of RecBole's."""
        return self.rows[0].name_in_source if len(self.rows) == 1 else self.model

    @property
    def prior_weights(self) -> dict[str, tuple[float, ...]]:
        """Priors that are searched -> weights to try, without those whose only weight is 0."""
        if not isinstance(self.settings, PriorSettings):
            return {}
        of = self.settings
        weights = dict(zip(PRIORS, (of.text_weights, of.item_knn_weights, of.transition_weights), strict=True))
        return {name: values for name, values in weights.items() if any(values)}

    def choose_features(self, features: Mapping[str, T]) -> dict[str, T]:
        """Select the modality of text-kNN, if the dataset has it."""
        if TEXT_KNN not in self.prior_weights or not isinstance(self.settings, PriorSettings):
            return {}
        modality = self.settings.prior_modality
        return {modality: features[modality]} if modality in features else {}

    def refuse_missing_features(self, features: Mapping[str, Any]) -> None:
        """Refuse a modality that the command line names and the dataset lacks. One of a settings file is left out.

        Raises:
            ModelError: the dataset lacks the modality.
        """
        origin = self.resolved.origin.get("prior_modality", "")
        if TEXT_KNN in self.prior_weights and not self.choose_features(features) and origin.startswith("--"):
            known = ", ".join(sorted(features)) or "none"
            raise ModelError(f"{origin}: the dataset has no features of this modality; it has {known}")

    def list_terms(self, features: Mapping[str, Any]) -> list[str]:
        """List the names of the terms with a weight: the rows of a fusion, or the priors that the dataset allows.

        Args:
            features: modality -> its features, for all modalities of the dataset.
        """
        if self.kind == "fusion":
            return [row.label for row in self.rows]
        has_text = bool(self.choose_features(features))
        return [name for name in self.prior_weights if name != TEXT_KNN or has_text]

    @property
    def n_points(self) -> int:
        """Number of weights that are tried if the dataset has features for all priors."""
        if isinstance(self.settings, FusionSettings):
            return math.comb(self.settings.fusion_steps + len(self.rows) - 1, len(self.rows) - 1)
        return math.prod(len(weights) for weights in self.prior_weights.values())

    def list_points(self, features: Mapping[str, Any]) -> list[Point]:
        """List the weights that are tried, one for each of `list_terms`; none if nothing is searched."""
        if isinstance(self.settings, FusionSettings):
            return list_simplex(len(self.rows), self.settings.fusion_steps)
        return list_product([self.prior_weights[name] for name in self.list_terms(features)])

    def identify_code(self) -> dict[str, str]:
        """Compute a digest of each module of the run's code; that of the combined runs is recorded with them."""
        return digest_model_code(*_CODE) | {name: digest_module(name) for name in _CODE_WITHOUT_IMPORTS}


def build_combined_config(
    name: CombinedName, rows: Sequence[RunConfig], preset: str, overrides: Sequence[Override]
) -> CombinedRunConfig:
    """Build the run config of a combined row.

    Args:
        name: name of the row, taken apart.
        rows: run configs of the runs that it combines.
        preset: name of the preset.
        overrides: values that win over all others; those of other rows are ignored.

    Raises:
        SettingsError: a setting is wrong.
    """
    classes = [*SHARED_SETTINGS, KIND_SETTINGS[name.kind]]
    resolved = merge_combined_layers(name, preset, overrides)
    known = [key for cls in classes for key in list_field_names(cls)]
    built: Any = build_all_settings(classes, resolved, extra_known=known, file=str(find_properties() / "combined.yaml"))
    selection, evaluation, log, resources, settings = built
    refuse_unknown_metric(selection.valid_metric, evaluation.cutoffs, resolved)
    family = max((row.family for row in rows), key=FAMILIES.index, default=_ALONE)
    config = CombinedRunConfig(
        model=name.name,
        family=family,
        preset=preset,
        resolved=resolved,
        evaluation=evaluation,
        log=log,
        resources=resources,
        kind=name.kind,
        rows=tuple(rows),
        selection=selection,
        settings=settings,
    )
    if config.n_points > MOST_POINTS:
        raise SettingsError(
            f"{name.name}: {config.n_points:,} combinations of weights would be tried, at most {MOST_POINTS:,} can be; "
            "lower fusion_steps, or give fewer weights"
        )
    return config


def separate_combined(requested: Iterable[RunConfig]) -> tuple[list[RunConfig], list[RunConfig]]:
    """Add the runs that combined runs need, and separate runs that are trained from combined ones.

    The runs that are combined are included whether they were requested or not, and never have tuned values.

    Args:
        requested: runs that the user named.

    Returns:
        Runs that are trained, and combined runs, each after those that it combines.
    """
    every: dict[tuple[str, bool], RunConfig] = {}

    def add(config: RunConfig) -> None:
        for row in config.combined_runs:
            add(row)
        every.setdefault((config.model, config.search is None), config)

    for config in requested:
        add(config)
    trained = [config for config in every.values() if not isinstance(config, CombinedRunConfig)]
    return trained, [config for config in every.values() if isinstance(config, CombinedRunConfig)]


def select_trained(configs: Iterable[RunConfig], command: str) -> list[TrainedRunConfig]:
    """Return the run configs as ones of runs that are trained.

    Args:
        configs: run configs.
        command: command that trains, for the message.

    Raises:
        ModelError: one of them is combined.
    """
    trained = []
    for config in configs:
        if not isinstance(config, TrainedRunConfig):
            rows = ", ".join(row.model for row in config.combined_runs)
            instead = f"; name {rows} instead" if rows else ""
            raise ModelError(
                f"{config.model} trains nothing and searches its weights itself, so {command} cannot search it{instead}"
            )
        trained.append(config)
    return trained
