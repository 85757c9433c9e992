"""One training loop for every model, with selection by validation, early stopping and checkpoints.

Each epoch depends only on the parameters, the optimizer state and (seed, epoch): batches, dropout and all other random
draws use a seed made of both numbers. So a checkpoint needs no random state. On a CPU, with the same number of threads,
a run that was killed and resumed ends with exactly the numbers of an uninterrupted run.

If the run keeps a moving average of the weights, training goes on from the weights themselves, and their average is
evaluated, selected, and loaded at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Protocol

import torch

from hellm_recbole.config.harness_settings import EvalSettings, TrainSettings
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.evaluation.valid_sample import select_valid_targets
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.system.runtime import use_deterministic_sums
from hellm_recbole.system.signals import delay_signals
from hellm_recbole.training.averaging import use_average
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.learner import Learner, OnStep
from hellm_recbole.training.sampling import (
    derive_epoch_seed,
)
from hellm_recbole.training.schedule import set_learning_rate
from hellm_recbole.training.state import (
    collect_full_state,
    collect_model_state,
    load_model_state,
    unpack_optimizer,
)
from hellm_recbole.types import (
    SelectionData,
)


class View(Protocol):
    """What shows and logs the progress of a run."""

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """Show the progress; called after each training step."""

    def epoch(self, progress: Progress) -> None:
        """Show and log the progress; called after each epoch."""


def fit(
    learner: Learner,
    data: SelectionData,
    train: TrainSettings,
    evaluation: EvalSettings,
    *,
    seed: int,
    checkpoint: CheckpointFolder,
    run: Mapping[str, str],
    who: str,
    view: View,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Progress:
    """Train to the last epoch or to early stopping, and load the state of the best epoch into the learner.

    If there is a checkpoint, the run is resumed from it.

    Args:
        learner: newly built learner.
        data: training part and validation targets; it contains no test part.
        train: settings of the loop, the optimizer and the selection.
        evaluation: cut-offs and block size.
        seed: random seed of the run.
        checkpoint: folder to which the state is written after each epoch.
        run: everything that the run depends on; a checkpoint of another run is refused.
        who: model and dataset, for messages.
        view: view that shows each step and epoch.
        group: processes that train the model together; the first one writes the checkpoint, and all of them read it.

    Returns:
        Progress at the end of training.

    Raises:
        CheckpointError: the checkpoint is corrupt or belongs to another run.
        TrainingDiverged: a loss or score became NaN.
    """
    epochs = 1 if learner.one_pass else train.epochs
    progress = _resume(learner, checkpoint, run)
    group.copy_from_first(learner.module)
    while not progress.stopped:
        epoch = progress.epoch + 1
        started = time.perf_counter()
        losses = train_epoch(learner, train, epoch, seed, partial(view.step, epoch))
        trained = time.perf_counter()
        evaluated = epoch % train.eval_every == 0 or epoch == epochs
        with use_average(learner.average):
            valid = evaluate(learner, data, evaluation, who, group) if evaluated else None
        seconds = (trained - started, time.perf_counter() - trained)
        progress = add_epoch(progress, train, epochs, losses=losses, valid=valid, seconds=seconds)
        if group.rank == 0:
            _save(learner, checkpoint, progress)
        view.epoch(progress)
    group.wait()
    load_best(learner, checkpoint)
    return progress


def add_epoch(
    progress: Progress,
    train: TrainSettings,
    epochs: int,
    *,
    losses: dict[str, float],
    valid: dict[str, float] | None,
    seconds: tuple[float, float],
) -> Progress:
    """Add an epoch to the progress, and decide whether it is the best one and whether training ends.

    Args:
        progress: progress before the epoch.
        train: settings of the selection: metric and patience.
        epochs: largest number of epochs.
        losses: mean of each loss term.
        valid: validation metrics; None if the epoch was not evaluated.
        seconds: time of training and of validation.
    """
    epoch = progress.epoch + 1
    value = -math.inf if valid is None else valid[train.valid_metric]
    improved = valid is not None and (progress.best_epoch == 0 or value > progress.best_value)
    stale = progress.stale if valid is None else 0 if improved else progress.stale + 1
    return Progress(
        run=progress.run,
        epoch=epoch,
        best_epoch=epoch if improved else progress.best_epoch,
        best_value=value if improved else progress.best_value,
        stale=stale,
        stopped=epoch >= epochs or stale >= train.patience,
        train_seconds=progress.train_seconds + seconds[0],
        eval_seconds=progress.eval_seconds + seconds[1],
        curve=(*progress.curve, {"epoch": epoch, "losses": losses, "valid": valid, "seconds": seconds[0]}),
    )


def train_epoch(learner: Learner, train: TrainSettings, epoch: int, seed: int, on_step: OnStep) -> dict[str, float]:
    """Train one epoch with its learning rate and its random seed.

    Args:
        learner: learner of the run.
        train: settings of the loop.
        epoch: number of the epoch; the first one is 1.
        seed: random seed of the run.
        on_step: function to call after each training step.

    Returns:
        Mean of each loss term over the epoch.

    Raises:
        TrainingDiverged: a loss term is NaN or infinite.
    """
    set_learning_rate(learner.optimizer, train, epoch - 1)
    device = next((value.device for value in learner.module.parameters()), torch.device("cpu"))
    with use_deterministic_sums(device):
        return learner.train_epoch(epoch, derive_epoch_seed(seed, epoch), on_step)


def _save(learner: Learner, checkpoint: CheckpointFolder, progress: Progress) -> None:
    """Write the checkpoint after an epoch; a signal that stops the run is handled afterwards."""
    improved = progress.best_epoch == progress.epoch
    with delay_signals():
        last = collect_full_state(learner)
        with use_average(learner.average):
            best = collect_model_state(learner) if improved else None
        checkpoint.save(progress, last, best)


def load_best(learner: Learner, checkpoint: CheckpointFolder) -> None:
    """Load the state of the best epoch into the learner.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt, or belongs to another model.
    """
    load_model_state(learner, checkpoint.load_best())


def evaluate(
    learner: Learner, data: SelectionData, evaluation: EvalSettings, who: str, group: ProcessGroup = SINGLE_PROCESS
) -> dict[str, float]:
    """Compute the validation metrics under the policy `seen`, which selects the best epoch; see `valid_sample`."""
    history = data.train.history
    ranks = rank_targets(
        learner,
        select_valid_targets(data.valid, evaluation),
        train=history,
        seen=history,
        block_users=evaluation.eval_block_users,
        product=evaluation.eval_product,
        who=f"{who}, validation",
        group=group,
    )
    return average_metrics(ranks.user, ranks.seen, evaluation.cutoffs)


def _resume(learner: Learner, checkpoint: CheckpointFolder, run: Mapping[str, str]) -> Progress:
    """Load the checkpoint into the learner; without a checkpoint, return the progress of a new run."""
    stored = checkpoint.load(run)
    if stored is None:
        return Progress(run, 0, 0, -math.inf, 0, False, 0.0, 0.0, ())
    progress, state = stored
    load_model_state(learner, state)
    if learner.optimizer is not None:
        unpack_optimizer(learner.optimizer, state)
    return progress
