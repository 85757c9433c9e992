"""Learners of RecBole models on the toy dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hellm_recbole.bridge.learner import RecBoleLearner
from hellm_recbole.bridge.recbole_models import read_recbole_settings
from hellm_recbole.types import TrainData
from tests.bridge import toy

CPU = torch.device("cpu")
USERS = np.arange(1, toy.N_USERS + 1)


def build_learner(name: str, seed: int = 3, data: TrainData | None = None, **changes: Any) -> RecBoleLearner:
    own = read_recbole_settings(name)
    small = {key: value for key, value in toy.SMALL.items() if key in own}
    return RecBoleLearner(name, data or toy.make_train_data(), {**own, **toy.OURS, **small, **changes}, seed, CPU)


def ignore_step(step: int, n_steps: int, losses: dict[str, float]) -> None:
    """Do nothing after a training step."""
