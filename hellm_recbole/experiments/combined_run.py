"""The body of a combined run: search the weights on validation, then rank the test targets once.

Nothing is trained and there is no checkpoint: a run that was stopped starts again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.split import Split
from hellm_recbole.errors import ModelError
from hellm_recbole.evaluation.combined_scores import CombinedScorer, Term
from hellm_recbole.evaluation.ranking import Ranks, rank_targets
from hellm_recbole.evaluation.valid_sample import select_valid_targets
from hellm_recbole.evaluation.weight_search import Point, search_weights
from hellm_recbole.experiments.combined_config import TEXT_KNN, TRANSITION, CombinedRunConfig
from hellm_recbole.experiments.component_scores import CLOSE, build_terms
from hellm_recbole.experiments.components import identify_components, read_component
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.identity import identify_run
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.recording import count_sampled
from hellm_recbole.experiments.results import Combination, RunResult
from hellm_recbole.experiments.run import finish_result
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.system import runtime
from hellm_recbole.system.work_bar import WorkBar
from hellm_recbole.training.loggers import Logger


def combine_and_rank(
    config: RunConfig,
    split: Split,
    context: RunContext,
    store: PretrainedStore,
    fields: dict[str, Any],
    watchers: Sequence[Logger],
    position: str,
) -> RunResult:
    """Search the weights of a combined run, rank the targets, write the ranks, and return the successful result.

    Args:
        config: config of the run, a combined one.
        split: split of the dataset.
        context: output folder, random seed and device of the run and of those that it combines.
        store: not read: embeddings that combined runs need are loaded with them.
        fields: fields of the result that are known before; the identity and the combination are added.
        watchers: not called: there are no epochs.
        position: number of the run and of all runs of the command; "" if it is the only one.

    Raises:
        HellmError: a run that it combines cannot be used, or the dataset lacks features that were asked for.
    """
    assert isinstance(config, CombinedRunConfig)
    who = f"{config.label} on {split.dataset}"
    config.refuse_missing_features(split.features)
    fields["identity"] = identify_run(config, split, {}, identify_components(config, split, context))
    started = time.perf_counter()
    first, terms = build_terms(config, split, context)
    if config.kind == "priors" and not terms:
        raise ModelError(f"{config.model} has no prior: all weights to try are 0, or {split.dataset} lacks features")
    combination, valid = _choose_weights(config, split, first, terms, f"[{position}] {who}" if position else who)
    fields["combination"] = combination
    _refuse_other_scores(config, split, context, combination)
    searched = time.perf_counter()
    scorer = CombinedScorer(first, [*terms.values()], [combination["weights"][name] for name in terms], split.n_items)
    block = config.evaluation.eval_block_users
    if valid is None:
        valid = rank_targets(
            scorer,
            select_valid_targets(split.valid, config.evaluation),
            train=split.train,
            seen=split.train,
            block_users=block,
            who=f"{who}, valid",
        )
    seen = split.make_test_history()
    test = rank_targets(scorer, split.test, train=split.train, seen=seen, block_users=block, who=f"{who}, test")
    fields |= {
        "train_seconds": searched - started,
        "eval_seconds": time.perf_counter() - searched,
        "peak_memory_bytes": runtime.measure_peak_memory(context.device),
        "parameters": _add_up_parameters(config, split, context),
    }
    return finish_result(config, split, context, fields, {"valid": valid, "test": test})


def _choose_weights(
    config: CombinedRunConfig, split: Split, first: Term | None, terms: dict[str, Term], who: str
) -> tuple[Combination, Ranks | None]:
    """Search the weights of the terms, and print what was found.

    Args:
        config: config of the run.
        split: split of the dataset.
        first: term without a weight; None if there is none.
        terms: name -> term with a weight.
        who: row and dataset, for messages.

    Returns:
        Description for the result, and the validation ranks of the best point; None if nothing is searched.
    """
    combination = _describe_combination(config, [*terms])
    if TEXT_KNN in combination["left_out"]:
        modality = config.resolved.values["prior_modality"]
        print(f"{who}: {TEXT_KNN} is left out, for {split.dataset} has no features {modality}", flush=True)
    if not terms:
        return combination, None
    points = config.list_points(split.features)
    targets = select_valid_targets(split.valid, config.evaluation)
    with WorkBar(f"{who}: {len(points)} weights on", len(targets), "validation targets") as bar:
        found = search_weights(
            first,
            [*terms.values()],
            points,
            targets,
            split.train,
            block_users=config.evaluation.eval_block_users,
            cutoffs=config.evaluation.cutoffs,
            metric=config.valid_metric,
            who=f"{who}, validation",
            report=bar.update,
        )
    combination["weights"] = dict(zip(terms, found.weights, strict=True))
    combination["points"] = len(points)
    combination["valid"] = float(found.values.max())
    combination["valid_without"] = _find_value_without(config, points, found.values)
    shown = ", ".join(f"{name} {weight:g}" for name, weight in combination["weights"].items())
    print(f"{who}: {config.valid_metric} {combination['valid']:.4f} on validation with {shown}", flush=True)
    return combination, found.ranks


def _describe_combination(config: CombinedRunConfig, names: Sequence[str]) -> Combination:
    """Describe what a run combines, before its weights are searched.

    Args:
        config: config of the run.
        names: names of the terms with a weight.
    """
    added = {"transitions": (TRANSITION,), "priors": tuple(names), "fusion": ()}[config.kind]
    return Combination(
        rows=tuple(row.label for row in config.rows),
        priors=added,
        left_out=tuple(name for name in config.prior_weights if name not in names),
        transition_form=config.resolved.values["transition_form"] if TRANSITION in added else None,
        weights={},
        points=0,
        valid_metric=config.valid_metric,
        valid=None,
        valid_without=None,
    )


def _refuse_other_scores(
    config: CombinedRunConfig, split: Split, context: RunContext, combination: Combination
) -> None:
    """Refuse scores that do not give the recorded validation metric of the rows, such as scores of changed code.

    Raises:
        ModelError: the best row alone has another validation metric than its record says.
    """
    metric, found = combination["valid_metric"], combination["valid_without"]
    if found is None or not config.rows:
        return
    own = count_sampled(split, config.evaluation)
    for row in config.rows:
        if (other := count_sampled(split, row.evaluation)) != own:
            raise ModelError(
                f"{config.model} searches its weights on {own or 'all'} validation users, and {row.model} was "
                f"validated on {other or 'all'}; set the same valid_users for both"
            )
    recorded = [read_component(row, split, context).metrics["valid"].get(metric) for row in config.rows]
    best = max((value for value in recorded if value is not None), default=found)
    if not math.isclose(found, best, rel_tol=CLOSE):
        names = " and ".join(row.model for row in config.rows)
        raise ModelError(
            f"the scores of {names} give {metric} {found:.6f} on validation, and the record says {best:.6f}: the "
            f"checkpoint or the code has changed since; run {names} again with --fresh"
        )


def _find_value_without(
    config: CombinedRunConfig, points: Sequence[Point], values: npt.NDArray[np.float64]
) -> float | None:
    """Find the best metric with all weights 0, or of a single row of a fusion; None if no such point was tried."""
    is_fusion = config.kind == "fusion"
    alone = [max(point) == 1.0 if is_fusion else not any(point) for point in points]
    return max((float(value) for value, is_alone in zip(values, alone, strict=True) if is_alone), default=None)


def _add_up_parameters(config: CombinedRunConfig, split: Split, context: RunContext) -> dict[str, int | None]:
    """Add up the numbers of parameters of the combined runs; null if one is unknown."""
    parts = [read_component(row, split, context).parameters for row in config.rows]
    return {
        "trainable": _add_up([one["trainable"] for one in parts]),
        "total": _add_up([one["total"] for one in parts]),
    }


def _add_up(numbers: Sequence[int | None]) -> int | None:
    """Add up numbers; None if one is unknown."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
