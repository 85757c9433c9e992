from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.harness_settings import TrainSettings
from hellm_recbole.config.settings import Settings
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.models.base import ModelSpec, check_spec
from hellm_recbole.training.scoring import ScoringLearner
from hellm_recbole.types import HistoryBatch, QueryBatch, TrainData


class CountingSettings(Settings):
    max_history: int = Field(ge=0)


class Counting(nn.Module):
    """Scores an item by how often it is in the history that is read, and by a trained number."""

    def __init__(self, settings: CountingSettings, n_items: int) -> None:
        super().__init__()
        self.max_history, self.n_items = settings.max_history, n_items
        self.bias = nn.Parameter(torch.zeros(n_items))

    @classmethod
    def build(cls, settings: CountingSettings, data: TrainData) -> Counting:
        return cls(settings, data.n_items)

    def loss(self, batch: HistoryBatch) -> dict[str, Tensor]:
        targets = batch.targets[batch.targets > 0] - 1
        return {"cross_entropy": -self.bias.log_softmax(dim=0)[targets].mean()}

    def score(self, batch: QueryBatch) -> Tensor:
        assert not self.training
        counts = torch.zeros(len(batch.user), self.n_items + 1)
        counts.scatter_add_(1, batch.items, torch.ones_like(batch.items, dtype=torch.float32))
        return counts[:, 1:] + self.bias


SPEC = ModelSpec(Counting, CountingSettings, "sequential", "prefixes", scores_items=True)


def build_learner(split: Split, **values: Any) -> ScoringLearner:
    train: TrainSettings = resolve_own_run("SASRec", "toy", REGISTRY, "paper", []).train
    train = train.model_copy(update={"batch_size": 16, "learning_rate": 0.1})
    settings = CountingSettings(**{"max_history": 2, **values})
    return ScoringLearner(SPEC, settings, split.make_train_data(), train, None, 1, torch.device("cpu"))


def test_scores_are_those_of_the_model_for_the_most_recent_items(toy_split: Split) -> None:
    learner, users = build_learner(toy_split), np.arange(1, 12)
    learner.prepare()
    scores = learner.compute_scores(users, toy_split.train)
    assert scores.shape == (11, toy_split.n_items)
    assert not scores.requires_grad
    for row, user in enumerate(users):
        read = toy_split.train.get_items(int(user))[-2:]
        assert sorted(np.flatnonzero(scores[row].numpy()) + 1) == sorted(read)


def test_it_is_trained_like_any_model(toy_split: Split) -> None:
    learner = build_learner(toy_split)
    losses = [learner.train_epoch(epoch, epoch, lambda *_: None)["cross_entropy"] for epoch in range(1, 6)]
    assert 0 < losses[-1] < losses[0]


def test_a_model_that_scores_items_needs_no_vectors() -> None:
    check_spec("Counting", SPEC)
    assert not SPEC.has_item_embeddings
