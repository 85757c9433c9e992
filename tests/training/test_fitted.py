"""The learner of models that are fitted when they are built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError
from hellm_recbole.experiments.fitted_config import FittedRunConfig
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.training.checkpoint import CheckpointFolder
from hellm_recbole.training.fitted import FittedLearner, refuse_too_little_memory
from hellm_recbole.training.trainer import fit, load_best
from tests.training.small_runs import Silent

FITTED = [name for name, spec in REGISTRY.items() if spec.is_fitted]


def build_learner(name: str, split: Split) -> tuple[FittedRunConfig, FittedLearner]:
    config = resolve_own_run(name, "toy", REGISTRY, "paper", [])
    assert isinstance(config, FittedRunConfig)
    return config, config.build_learner(split.make_train_data(), 1, torch.device("cpu"))


def compute_scores(learner: FittedLearner, split: Split, users: np.ndarray) -> torch.Tensor:
    learner.prepare()
    return learner.compute_scores(users, split.train).clone()


@pytest.mark.parametrize("name", FITTED)
def test_training_is_one_pass_without_a_step_and_a_checkpoint_without_tensors(
    name: str, toy_split: Split, tmp_path: Path
) -> None:
    config, learner = build_learner(name, toy_split)
    users = np.arange(1, 12)
    before = compute_scores(learner, toy_split, users)
    checkpoint = CheckpointFolder(tmp_path)
    progress = fit(
        learner,
        toy_split.make_selection_data(),
        config.train,  # type: ignore[arg-type]  # what a single pass reads of the settings of training
        config.evaluation,
        seed=1,
        checkpoint=checkpoint,
        run={},
        who=name,
        view=Silent(),
    )
    assert (progress.epoch, progress.best_epoch, progress.stopped) == (1, 1, True)
    assert [(entry["losses"], entry["valid"]["N@20"]) for entry in progress.curve] == [({}, progress.best_value)]
    assert list(learner.module.parameters()) == []
    assert checkpoint.load_best() == {}
    again = build_learner(name, toy_split)[1]
    load_best(again, checkpoint)
    assert torch.equal(before, compute_scores(again, toy_split, users))


@pytest.mark.parametrize("name", FITTED)
def test_scores_do_not_depend_on_the_block_and_differ_between_items(name: str, toy_split: Split) -> None:
    learner = build_learner(name, toy_split)[1]
    together = compute_scores(learner, toy_split, np.arange(1, 12))
    alone = torch.cat([compute_scores(learner, toy_split, np.array([user])) for user in range(1, 12)])
    assert together.shape == (11, toy_split.n_items)
    assert torch.equal(together, alone)
    assert len(together[0].unique()) > 3


def test_a_catalogue_without_enough_memory_is_refused_before_fitting(
    toy_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        DataError, match=r"^EASE builds matrices of items x items: 9 items take 1,600 bytes of memory, "
    ):
        refuse_too_little_memory("EASE", 9, 1600, free_bytes=1599)
    refuse_too_little_memory("EASE", 9, 1600, free_bytes=1600)
    data = replace(toy_split.make_train_data(), n_items=10**8)
    config = build_learner("EASE", toy_split)[0]
    with pytest.raises(DataError, match="100,000,000 items take"):
        config.build_learner(data, 1, torch.device("cpu"))
