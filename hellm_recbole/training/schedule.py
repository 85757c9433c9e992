"""Learning rate schedules: constant, exponential or cosine, with a linear warm-up."""

from __future__ import annotations

import math

import torch

from hellm_recbole.config.harness_settings import TrainSettings


def compute_learning_rate_factor(train: TrainSettings, done: float, floor: float = 0.0) -> float:
    """Compute the learning rate after some epochs, relative to the setting `learning_rate`.

    Args:
        train: settings of the schedule.
        done: number of completed epochs. An `int` is for models whose rate changes once in each epoch; their warm-up
            has one level for each epoch. A `float` is for models whose rate changes in each step.
        floor: factor at the end of a cosine schedule.
    """
    if done < train.warmup_epochs:
        return (done + 1) / (train.warmup_epochs + 1) if isinstance(done, int) else done / train.warmup_epochs
    if train.schedule == "exponential":
        return float(train.decay_rate ** (done / train.decay_epochs))
    if train.schedule == "cosine":
        span = max(train.epochs - train.warmup_epochs, 1)
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * (done - train.warmup_epochs) / span))
    return 1.0


def set_learning_rate(
    optimizer: torch.optim.Optimizer | None, train: TrainSettings, done: float, floor: float = 0.0
) -> None:
    """Set the learning rate of an optimizer after `done` epochs; see `compute_learning_rate_factor`."""
    if optimizer is None:
        return
    for group in optimizer.param_groups:
        group["lr"] = train.learning_rate * compute_learning_rate_factor(train, done, floor)
