"""The configuration of one run, one type for each kind of model, and what differs between the kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch

from hellm_recbole.bridge.learner import RecBoleLearner
from hellm_recbole.bridge.recbole_models import find_recbole_module
from hellm_recbole.config.harness_settings import (
    NEUTRAL_KEYS,
    ClusterSettings,
    EvalSettings,
    LogSettings,
    PairSettings,
    StepSettings,
    TrainSettings,
)
from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.experiments.results import Search, label_run
from hellm_recbole.identity.code import digest_model_code, digest_recbole_code
from hellm_recbole.models.base import Family, ModelSpec
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.training.learner import Learner, ModelLearner
from hellm_recbole.types import TrainData

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunConfig(ABC):
    """The configuration of one run: one model on one dataset, with all settings resolved and checked.

    Attributes:
        model: name of the model or variant.
        family: group of the model in the tables.
        preset: name of the preset.
        resolved: values of all settings with their origins.
        evaluation: cut-offs and number of users in a block.
        log: settings of the loggers.
        resources: CPUs and GPUs that the run requests from a Ray cluster.
        search: the hyper-parameter search that found the values of a tuned model; None for other models.
    """

    model: str
    family: Family
    preset: str
    resolved: Resolved
    evaluation: EvalSettings
    log: LogSettings
    resources: ClusterSettings
    search: Search | None = None

    @property
    def label(self) -> str:
        """Name of the run in tables and name of its folder."""
        return label_run(self.model, self.backbone, self.search is not None)

    @property
    def backbone(self) -> str | None:
        """Short name of the language model; None if the model has none."""
        return None

    @property
    def pretrained_models(self) -> tuple[str, ...]:
        """Pretrained models whose item embeddings this run reads."""
        return ()

    @property
    def pretrained_tables(self) -> tuple[str, ...]:
        """Tables of these models that this run reads (see `types.TrainData.pretrained`)."""
        return self.pretrained_models

    @property
    def combined_runs(self) -> tuple[RunConfig, ...]:
        """Runs whose scores this run combines."""
        return ()

    @property
    @abstractmethod
    def valid_metric(self) -> str:
        """Metric on the validation part that the run maximises, such as N@20."""

    @property
    def has_item_embeddings(self) -> bool:
        """Whether another model can read the item embeddings of this one."""
        return False

    @property
    def has_user_embeddings(self) -> bool:
        """Whether the model has user embeddings that another one can read: a vector that no held-out item changes."""
        return False

    @property
    def reads_texts(self) -> bool:
        """Whether the model reads the item texts."""
        return False

    @property
    @abstractmethod
    def source(self) -> Literal["hellm_recbole", "recbole"]:
        """The project that implements the model."""

    @property
    @abstractmethod
    def name_in_source(self) -> str:
        """Name of the model in the project that implements it."""

    @abstractmethod
    def choose_features(self, features: Mapping[str, T]) -> dict[str, T]:
        """Select the modalities that the model reads.

        If the setting `modalities` names one that the dataset lacks, all modalities are returned. The model then
        raises the error when it is built, with the list of those that exist.

        Args:
            features: modality -> its features, for all modalities of the dataset.

        Returns:
            The same mapping with only the selected modalities.
        """

    @abstractmethod
    def identify_code(self) -> dict[str, str]:
        """Compute a digest of each module of the run's code: module -> digest.

        A process reads each file once. Call this early: if a file is edited after it has been imported, the process
        still runs the old code, and the digest must be that of the old code.
        """

    def restrict_data(self, data: TrainData) -> TrainData:
        """Remove the features and texts that the model does not read, so that they cannot change its numbers."""
        features = self.choose_features(data.features)
        return replace(
            data,
            features=features,
            covered={name: covered for name, covered in data.covered.items() if name in features},
            item_text=data.item_text if self.reads_texts else (),
        )

    def reproducibility_settings(self) -> dict[str, Value]:
        """Return the settings that can change the numbers of the run."""
        return {key: value for key, value in sorted(self.resolved.values.items()) if key not in NEUTRAL_KEYS}


@dataclass(frozen=True, kw_only=True)
class TrainedRunConfig(RunConfig):
    """The configuration of a run that trains a model.

    Attributes:
        train: settings of the training loop, the optimizer and the model selection.
    """

    train: TrainSettings

    @property
    def valid_metric(self) -> str:
        """Metric on the validation part that selects the best epoch."""
        return self.train.valid_metric

    @abstractmethod
    def build_learner(
        self, data: TrainData, seed: int, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
    ) -> Learner:
        """Build the initial learner of a run.

        Args:
            data: training data, from `restrict_data`, with the pretrained embeddings that the model reads.
            seed: random seed of the run.
            device: device of the learner.
            group: processes that train the run together.
        """


@dataclass(frozen=True, kw_only=True)
class OwnRunConfig(TrainedRunConfig):
    """The configuration of a run of one of our models, or of a plugin's.

    Attributes:
        spec: entry of the model in the registry.
        model_settings: settings of the model, in its own class.
        pairs: settings of pair sampling; None for models that do not train on pairs.
    """

    spec: ModelSpec
    model_settings: Any
    pairs: PairSettings | None = None

    @property
    def has_item_embeddings(self) -> bool:
        """Whether another model can read the item embeddings of this one."""
        return True

    @property
    def has_user_embeddings(self) -> bool:
        """Whether the model has user embeddings that another one can read, see `RunConfig.has_user_embeddings`.

        The exported user vectors of a model that reads histories are those that ranked the test part: they know the
        validation item.
        """
        return getattr(self.spec.cls, "max_history", None) == 0

    @property
    def reads_texts(self) -> bool:
        """Whether the model reads the item texts."""
        return self.spec.gets_texts(self.model_settings)

    @property
    def source(self) -> Literal["hellm_recbole", "recbole"]:
        """The project that implements the model."""
        return "hellm_recbole"

    @property
    def name_in_source(self) -> str:
        """Name of the model in the project that implements it."""
        return self.model

    def choose_features(self, features: Mapping[str, T]) -> dict[str, T]:
        """Select the modalities that the model reads, see `RunConfig.choose_features`."""
        return self.spec.choose_features(self.model_settings, features)

    def identify_code(self) -> dict[str, str]:
        """Compute a digest of each module of the run's code, see `RunConfig.identify_code`."""
        return digest_model_code(self.spec.cls.__module__, self.spec.settings.__module__)

    def build_learner(
        self, data: TrainData, seed: int, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
    ) -> ModelLearner:
        """Build the initial learner of a run, see `TrainedRunConfig.build_learner`."""
        return ModelLearner(self.spec, self.model_settings, data, self.train, self.pairs, seed, device, group=group)


@dataclass(frozen=True, kw_only=True)
class LLMRunConfig(OwnRunConfig):
    """The configuration of a run of an LLM model, which several processes may train together.

    Attributes:
        steps: settings of the training steps.
    """

    steps: StepSettings

    @property
    def backbone(self) -> str | None:
        """Short name of the language model; None if the model is run without one."""
        label: str | None = self.model_settings.backbone_label
        return label

    @property
    def pretrained_models(self) -> tuple[str, ...]:
        """Pretrained models whose item embeddings this run reads."""
        models: tuple[str, ...] = self.model_settings.pretrained_models
        return models

    @property
    def pretrained_tables(self) -> tuple[str, ...]:
        """Tables of these models that this run reads (see `types.TrainData.pretrained`)."""
        tables: tuple[str, ...] = self.model_settings.pretrained_tables
        return tables

    @property
    def has_item_embeddings(self) -> bool:
        """Whether another model can read the item embeddings of this one."""
        return False

    def build_learner(
        self, data: TrainData, seed: int, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
    ) -> ModelLearner:
        """Build the initial learner of a run, see `TrainedRunConfig.build_learner`."""
        return ModelLearner(
            self.spec, self.model_settings, data, self.train, self.pairs, seed, device, self.steps, group
        )


@dataclass(frozen=True, kw_only=True)
class RecBoleRunConfig(TrainedRunConfig):
    """The configuration of a run of one of RecBole's models.

    Attributes:
        recbole_name: RecBole's name of the model.
    """

    recbole_name: str

    @property
    def source(self) -> Literal["hellm_recbole", "recbole"]:
        """The project that implements the model."""
        return "recbole"

    @property
    def name_in_source(self) -> str:
        """Name of the model in the project that implements it."""
        return self.recbole_name

    def choose_features(self, features: Mapping[str, T]) -> dict[str, T]:
        """Return no features: RecBole's models get none."""
        return {}

    def identify_code(self) -> dict[str, str]:
        """Compute a digest of each module of the run's code, see `RunConfig.identify_code`."""
        return digest_recbole_code(find_recbole_module(self.recbole_name))

    def build_learner(
        self, data: TrainData, seed: int, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
    ) -> RecBoleLearner:
        """Build the initial learner of a run, see `TrainedRunConfig.build_learner`. One process trains it."""
        return RecBoleLearner(self.recbole_name, data, dict(self.resolved.values), seed, device)
