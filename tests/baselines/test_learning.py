"""Every registered model that is trained learns the structure of the toy data. A new model is tested by itself."""

from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.types import Histories, Targets, TrainData
from tests.baselines.test_contract import NAMES, build_learner, ignore_step

QUICK = {"BPR", "FREEDOM", "LightGCN", "SASRec", "VBPR"}  # the others take up to a minute each


def mark_slow(name: str) -> object:
    return pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])


@pytest.mark.parametrize("name", [mark_slow(name) for name in NAMES])
def test_metrics_are_better_on_structured_data_than_on_shuffled_data(name: str, toy_split: Split) -> None:
    structured = toy_split.make_train_data()
    shuffled_items = np.random.default_rng(0).permutation(structured.history.items)
    shuffled = TrainData(
        structured.n_users,
        structured.n_items,
        Histories(structured.history.indptr, shuffled_items),
        structured.features,
    )
    scores = []
    for data in (structured, shuffled):
        learner = build_learner(name, data, batch_size=32)
        for epoch in range(1, 31):
            learner.train_epoch(epoch, epoch, ignore_step)
        ranks = rank_targets(
            learner,
            Targets(toy_split.valid.user, toy_split.valid.item),
            train=data.history,
            seen=data.history,
            block_users=64,
            who=name,
        )
        scores.append(average_metrics(ranks.user, ranks.seen, [5])["N@5"])
    assert scores[0] > 1.5 * scores[1]
