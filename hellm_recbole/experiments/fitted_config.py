"""The configuration of a run of a model that is fitted when it is built: it has no settings of training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from hellm_recbole.config.harness_settings import (
    ClusterSettings,
    EvalSettings,
    LogSettings,
    OnePassSettings,
    TrainSettings,
)
from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.request import Override
from hellm_recbole.config.settings import Settings
from hellm_recbole.experiments.run_config import OwnRunConfig, RunConfig
from hellm_recbole.identity.code import digest_model_code, digest_module
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.training.fitted import FittedLearner
from hellm_recbole.types import TrainData

FITTED_SETTINGS: tuple[type[Settings], ...] = (OnePassSettings, EvalSettings, LogSettings, ClusterSettings)


@dataclass(frozen=True, kw_only=True)
class FittedRunConfig(OwnRunConfig):
    """The configuration of a run of a fitted model.

    Its record has no setting of training, one pass (`epochs_run` 1) without losses, and no parameters.

    Attributes:
        train: metric of the validation part, and what the training loop reads for a single pass.
    """

    train: OnePassSettings  # type: ignore[assignment]

    @property
    def has_item_embeddings(self) -> bool:
        """Whether another model can read the item embeddings of this one. A fitted model has none."""
        return False

    @property
    def has_user_embeddings(self) -> bool:
        """Whether the model has user embeddings that another one can read. A fitted model has none."""
        return False

    def identify_code(self) -> dict[str, str]:
        """Compute a digest of each module of the run's code, see `RunConfig.identify_code`."""
        modules = digest_model_code(
            self.spec.cls.__module__, self.spec.settings.__module__, "hellm_recbole.training.fitted"
        )
        return modules | {__name__: digest_module(__name__)}

    def build_learner(  # type: ignore[override]
        self, data: TrainData, seed: int, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
    ) -> FittedLearner:
        """Fit the model, see `TrainedRunConfig.build_learner`."""
        return FittedLearner(self.spec, self.model_settings, data, device)


def is_for_training(override: Override, configs: Sequence[RunConfig]) -> bool:
    """Return whether an override for all models is a setting of training, and these runs are of fitted models.

    Such a value has no effect on them, whether another model is run by the same command or not.

    Args:
        override: the override.
        configs: runs that it is for.
    """
    fitted = any(isinstance(config, FittedRunConfig) for config in configs)
    return fitted and override.model is None and override.key in TrainSettings.model_fields


def drop_unread(resolved: Resolved, known: Collection[str]) -> Resolved:
    """Drop the settings of `overall.yaml` that a run does not have; those of other files stay, to be refused.

    Args:
        resolved: values of all settings with their origins.
        known: settings that the run has.
    """
    kept = [key for key in resolved.values if key in known or resolved.origin[key] != "overall.yaml"]
    return Resolved({key: resolved.values[key] for key in kept}, {key: resolved.origin[key] for key in kept})
