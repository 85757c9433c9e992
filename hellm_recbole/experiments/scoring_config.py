"""The configuration of a run of a model that is trained, and that computes the scores of all items itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.identity.code import digest_model_code, digest_module
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.training.scoring import ScoringLearner
from hellm_recbole.types import TrainData


@dataclass(frozen=True, kw_only=True)
class ScoringRunConfig(OwnRunConfig):
    """The configuration of a run of a model that has no vectors of users and items whose products are the scores."""

    @property
    def has_item_embeddings(self) -> bool:
        """Whether another model can read the item embeddings of this one. It has none."""
        return False

    @property
    def has_user_embeddings(self) -> bool:
        """Whether the model has user embeddings that another one can read. It has none."""
        return False

    def identify_code(self) -> dict[str, str]:
        """Compute a digest of each module of the run's code, see `RunConfig.identify_code`."""
        modules = digest_model_code(
            self.spec.cls.__module__, self.spec.settings.__module__, "hellm_recbole.training.scoring"
        )
        return modules | {__name__: digest_module(__name__)}

    def build_learner(
        self, data: TrainData, seed: int, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
    ) -> ScoringLearner:
        """Build the initial learner of a run, see `TrainedRunConfig.build_learner`."""
        return ScoringLearner(self.spec, self.model_settings, data, self.train, self.pairs, seed, device, group=group)
