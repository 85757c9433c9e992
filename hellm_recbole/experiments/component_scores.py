"""Scorers of finished runs, and of rows that combine them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from hellm_recbole.config.combined_settings import PriorSettings, TransitionSettings
from hellm_recbole.data.split import Split
from hellm_recbole.errors import CheckpointError, ModelError
from hellm_recbole.evaluation.combined_scores import CombinedScorer, RowTerm, Term
from hellm_recbole.experiments.combined_config import (
    ITEM_KNN,
    TEXT_KNN,
    TRANSITION,
    CombinedRunConfig,
)
from hellm_recbole.experiments.components import read_component
from hellm_recbole.experiments.context import CHECKPOINT, RunContext
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.experiments.run import build_learner
from hellm_recbole.experiments.run_config import RunConfig, TrainedRunConfig
from hellm_recbole.graphs.item_graphs import build_cooccurrence, build_transitions
from hellm_recbole.models.priors import CountPrior, FeaturePrior
from hellm_recbole.system.distributed import SINGLE_PROCESS
from hellm_recbole.training.checkpoint import STATE, CheckpointFolder
from hellm_recbole.training.trainer import load_best
from hellm_recbole.types import Scorer

CLOSE = 1e-4  # relative difference of equal validation metrics that rounding on another device may make


def load_finished_scorer(config: RunConfig, split: Split, context: RunContext) -> Scorer:
    """Load the scorer of a finished run: its best checkpoint, or the weights that its search found.

    Args:
        config: run config of the run.
        split: split of the dataset.
        context: output folder, seed and device of the run.

    Raises:
        ModelError: the run is missing, has not succeeded, used another split, or has kept no checkpoint.
        CheckpointError: the checkpoint is damaged, or belongs to another model.
        DataError: pretrained embeddings that the run reads are missing or broken.
    """
    result = read_component(config, split, context)
    if isinstance(config, CombinedRunConfig):
        weights = {} if result.combination is None else result.combination["weights"]
        return build_combined_scorer(config, split, context, weights)
    assert isinstance(config, TrainedRunConfig)
    folder = context.locate_run(config, split.dataset)
    if not (folder / CHECKPOINT / STATE).exists():
        raise ModelError(
            f"needs the scores of {config.label}, but its run {folder} has no checkpoint; train it again with "
            f"`--models {config.model} --fresh`"
        )
    alone = replace(context, group=SINGLE_PROCESS)
    try:
        embeddings = PretrainedStore().load(context.output, split, config.pretrained_tables, context.seed)
        learner = build_learner(config, split, alone, embeddings)
        checkpoint = CheckpointFolder(folder / CHECKPOINT)
        _refuse_another_checkpoint(checkpoint, result, config.train.valid_metric)
        load_best(learner, checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"needs the scores of {config.label}: {error}") from error
    return learner


def _refuse_another_checkpoint(checkpoint: CheckpointFolder, result: RunResult, metric: str) -> None:
    """Refuse a checkpoint that is not that of the recorded run, such as one copied from another seed.

    Raises:
        CheckpointError: best epoch or validation metric differ.
    """
    epoch, value = checkpoint.read_best()
    recorded = result.metrics["valid"].get(metric, value)
    if epoch != result.best_epoch or not math.isclose(value, recorded, rel_tol=CLOSE):
        raise CheckpointError(
            f"{checkpoint.folder} is the checkpoint of another run: its best epoch is {epoch} with {metric} "
            f"{value:.6f}, and the record says epoch {result.best_epoch} with {recorded:.6f}; run {result.model} again "
            "with --fresh"
        )


def build_terms(config: CombinedRunConfig, split: Split, context: RunContext) -> tuple[Term | None, dict[str, Term]]:
    """Build the terms of a combined row.

    Args:
        config: run config of the row.
        split: split of the dataset.
        context: output folder, seed and device of the runs.

    Returns:
        The term without a weight, None if there is none; and name -> term with a weight, in order.

    Raises:
        HellmError: see `load_finished_scorer`.
    """
    if isinstance(config.settings, TransitionSettings) and config.kind == "transitions":
        return _build_transition_term(config.settings, split), {}
    rows = [RowTerm(load_finished_scorer(row, split, context)) for row in config.rows]
    names = config.list_terms(split.features)
    if config.kind == "fusion":
        return None, dict(zip(names, rows, strict=True))
    assert isinstance(config.settings, PriorSettings)
    return (rows[0] if rows else None), {name: _build_prior(name, config.settings, split) for name in names}


def build_combined_scorer(
    config: CombinedRunConfig, split: Split, context: RunContext, weights: Mapping[str, float]
) -> CombinedScorer:
    """Build the scorer of a combined row with known weights.

    Args:
        config: run config of the row.
        split: split of the dataset.
        context: output folder, seed and device of the runs.
        weights: name of each term with a weight -> its weight.
    """
    first, terms = build_terms(config, split, context)
    return CombinedScorer(first, [*terms.values()], [weights[name] for name in terms], split.n_items)


def _build_prior(name: str, settings: PriorSettings, split: Split) -> Term:
    """Build a prior from the training part of the split and its features."""
    if name == TEXT_KNN:
        return FeaturePrior(split.features[settings.prior_modality], settings.text_decay)
    if name == ITEM_KNN:
        similarity = build_cooccurrence(split.train, split.n_items)
        return CountPrior(similarity, settings.item_knn_decay, settings.prior_floor)
    assert name == TRANSITION
    return _build_transition_term(settings, split)


def _build_transition_term(settings: TransitionSettings, split: Split) -> Term:
    """Build the term of one-step transitions from the training part of the split."""
    similarity = build_transitions(split.train, split.n_items, settings.transition_form)
    return CountPrior(similarity, settings.transition_decay, settings.prior_floor)
