"""The learner of a model that is fitted when it is built: one pass, without a step, an optimizer or a stored state."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from torch import Tensor, nn

from hellm_recbole.errors import DataError
from hellm_recbole.models.base import ModelSpec, check_module
from hellm_recbole.training.learner import OnStep
from hellm_recbole.types import Histories, IdArray, QueryBatch, TrainData, as_ids, pad_recent


class FittedLearner:
    """One fitted model, as a `Learner`.

    Its checkpoint holds no tensor: the same training data and settings give the same model again.

    Args:
        spec: entry of the model in the registry.
        model_settings: settings of the model.
        data: training part.
        device: device to which the scores are moved. The model itself is fitted on the CPU.

    Raises:
        DataError: there is too little memory to fit the model.
    """

    one_pass = True
    optimizer = None
    average = None

    def __init__(self, spec: ModelSpec, model_settings: Any, data: TrainData, device: torch.device) -> None:
        if hasattr(spec.cls, "estimate_bytes"):
            refuse_too_little_memory(spec.cls.__name__, data.n_items, spec.cls.estimate_bytes(data.n_items))
        self.module: nn.Module = spec.cls.build(model_settings, data).to(device)
        check_module(spec.cls.__name__, self.module)
        self._device = device

    def train_epoch(self, epoch: int, rng_seed: int, on_step: OnStep) -> dict[str, float]:
        """Return no losses: the model is already fitted; see `Learner`."""
        return {}

    def collect_extra_state(self) -> dict[str, Tensor]:
        """Return nothing: the model is fitted again from the data."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Load nothing."""

    def prepare(self) -> None:
        """Switch to evaluation; see `types.Scorer`."""
        self.module.eval()

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items; see `types.Scorer`."""
        model: Any = self.module
        recent = pad_recent(history.indptr, history.items, user, model.max_history)
        return self.score_batch(QueryBatch(as_ids(user, self._device), as_ids(recent, self._device)))

    def score_batch(self, batch: QueryBatch) -> Tensor:
        """Compute the scores of all items for a batch of users with their histories, [B, I] float32."""
        model: Any = self.module
        scores: Tensor = model.score(batch)
        return scores.to(self._device)


def refuse_too_little_memory(model: str, n_items: int, needed_bytes: int, free_bytes: int | None = None) -> None:
    """Refuse to fit a model that needs more memory than is free.

    Args:
        model: name of the model.
        n_items: number of items I.
        needed_bytes: memory that the model needs while it is fitted.
        free_bytes: free memory of the machine; None measures it.

    Raises:
        DataError: less memory is free than the model needs; the message says how many bytes.
    """
    free = psutil.virtual_memory().available if free_bytes is None else free_bytes
    if needed_bytes > free:
        raise DataError(
            f"{model} builds matrices of items x items: {n_items:,} items take {needed_bytes:,} bytes of memory, and "
            f"{free:,} bytes are free; leave {model} out, or use a dataset with fewer items"
        )
