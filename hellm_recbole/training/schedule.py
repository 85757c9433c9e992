"""Learning rate schedules: constant, linear, cosine or exponential, with a linear warm-up."""

from __future__ import annotations

import math

import torch

from hellm_recbole.config.harness_settings import TrainSettings


def compute_learning_rate_factor(train: TrainSettings, done: float, n_steps: int | None = None) -> float:
    """Compute the learning rate after some epochs, relative to the setting `learning_rate`.

    The linear schedule with a warm-up in steps is that of transformers' `get_linear_schedule_with_warmup`, ending at
    the floor in place of 0: warm-up from 0 in step 0, the setting itself in step `warmup_steps`.

    Args:
        train: settings of the schedule.
        done: number of completed epochs. An `int` is for models whose rate changes once in each epoch; their warm-up
            has one level for each epoch. A `float` is for models whose rate changes in each step.
        n_steps: number of steps of an epoch, for a warm-up in steps; None for a rate that changes in each epoch.
    """
    floor = train.learning_rate_floor
    warmup: float = train.warmup_epochs if n_steps is None or not train.warmup_steps else train.warmup_steps / n_steps
    if done < warmup:
        return (done + 1) / (warmup + 1) if isinstance(done, int) else done / warmup
    if train.schedule == "exponential":
        return float(train.decay_rate ** (done / train.decay_epochs))
    span = train.epochs - warmup if train.epochs > warmup else 1
    if train.schedule == "cosine":
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / span))
    if train.schedule == "linear":
        return floor + (1.0 - floor) * (1.0 - (done - warmup) / span)
    return 1.0


def changes_rate_by_step(train: TrainSettings) -> bool:
    """Return whether the settings ask for a learning rate that changes in each step, whatever the model."""
    return train.schedule == "linear" or train.warmup_steps > 0


def set_learning_rate(
    optimizer: torch.optim.Optimizer | None, train: TrainSettings, done: float, n_steps: int | None = None
) -> None:
    """Set the learning rate of an optimizer after `done` epochs; see `compute_learning_rate_factor`."""
    if optimizer is None:
        return
    for group in optimizer.param_groups:
        group["lr"] = train.learning_rate * compute_learning_rate_factor(train, done, n_steps)
