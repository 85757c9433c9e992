"""Small runs and learners for the tests of training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.learner import ModelLearner
from hellm_recbole.training.trainer import fit
from hellm_recbole.types import TrainData
from tests.toy_llm import add_pretrained_embeddings, small_values

CPU = torch.device("cpu")


def small_config(name: str, **values: Any) -> OwnRunConfig:
    shared = {
        "epochs": 6,
        "patience": 6,
        "eval_every": 1,
        "batch_size": 32,
        "cutoffs": [5, 10],
        "valid_metric": "N@10",
        **small_values(name),
        **values,
    }
    overrides = [Override(name, k, v, f"{k}={v}") for k, v in shared.items()]
    return resolve_own_run(name, "toy", REGISTRY, "paper", overrides)


def small_learner(
    config: OwnRunConfig, data: TrainData, device: torch.device = CPU, group: ProcessGroup = SINGLE_PROCESS
) -> ModelLearner:
    """Build the learner of a small run, with pretrained embeddings if the model reads some."""
    return config.build_learner(add_pretrained_embeddings(data, config), 7, device, group)


class Silent:
    """A view that shows nothing, and can stop the run after some epochs or steps like a killed process."""

    def __init__(self, stop_after_epochs: int = 10**9, stop_in_step: int = 10**9) -> None:
        self.epochs_left, self.steps_left = stop_after_epochs, stop_in_step

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            raise KeyboardInterrupt

    def epoch(self, progress: Progress) -> None:
        self.epochs_left -= 1
        if self.epochs_left == 0:
            raise KeyboardInterrupt


def run(
    split: Split,
    folder: Path,
    name: str,
    view: Silent | None = None,
    fingerprint: str = "run",
    device: torch.device = CPU,
    **values: Any,
) -> tuple[Progress, ModelLearner]:
    run_config = small_config(name, **values)
    learner = small_learner(run_config, split.make_train_data(), device)
    progress = fit(
        learner,
        split.make_selection_data(),
        run_config.train,
        run_config.evaluation,
        seed=7,
        checkpoint=CheckpointFolder(folder),
        run={"setting name": json.dumps(fingerprint)},
        who=name,
        view=view or Silent(),
    )
    return progress, learner


def remove_times(progress: Progress) -> Progress:
    curve = tuple({**entry, "seconds": 0.0} for entry in progress.curve)
    return dataclasses.replace(progress, train_seconds=0.0, eval_seconds=0.0, curve=curve)
