"""The learner of a trained model that computes the scores of all items itself, such as one that generates items."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hellm_recbole.evaluation.product_ranks import ItemVectors
from hellm_recbole.training.learner import ModelLearner
from hellm_recbole.types import Histories, IdArray, QueryBatch, as_ids, pad_recent


class ScoringLearner(ModelLearner):
    """One model whose scores are those of its method `score`; see `models.base.ScoringModel`."""

    def prepare(self) -> None:
        """Switch to evaluation; see `types.Scorer`."""
        self.module.eval()

    def get_item_vectors(self) -> ItemVectors | None:
        """Return nothing: the scores are no product of vectors; see `evaluation.product_ranks.ProductScorer`."""
        return None

    @torch.no_grad()
    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items; see `types.Scorer`."""
        model: Any = self.module
        recent = pad_recent(history.indptr, history.items, user, model.max_history)
        device = next(model.parameters()).device
        return self.score_batch(QueryBatch(as_ids(user, device), as_ids(recent, device)))

    @torch.no_grad()
    def score_batch(self, batch: QueryBatch) -> Tensor:
        """Compute the scores of all items for a batch of users with their histories, [B, I] float32."""
        model: Any = self.module
        scores: Tensor = model.score(batch)
        return scores
