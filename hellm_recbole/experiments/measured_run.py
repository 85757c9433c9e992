"""Execute a run with all that changes none of its numbers: trackers, plug-ins, its costs, and the count of openings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.combined_config import CombinedRunConfig
from hellm_recbole.experiments.combined_run import combine_and_rank
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.cost_meter import CostMeter
from hellm_recbole.experiments.openings import count_opening
from hellm_recbole.experiments.plugin_results import execute_with_plugins
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.results import RunResult, write_result
from hellm_recbole.experiments.run import execute_run
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.experiments.run_tracking import describe_outcome, leave_out_loggers, track_run
from hellm_recbole.training.loggers import Logger
from hellm_recbole.training.trackers.guard import Report


def execute_and_measure(
    config: RunConfig,
    dataset: Dataset,
    split: Split,
    context: RunContext,
    store: PretrainedStore,
    *,
    fresh: bool,
    position: str,
    callbacks: Sequence[str],
    watchers: Sequence[Logger],
    report: Report,
) -> RunResult:
    """Execute a run with its trackers and plug-ins, and return its result with its costs.

    The opening of the test part is counted if the run has ranked the test targets.

    Args:
        config: config of the run.
        dataset: dataset of the run.
        split: split that the run reads.
        context: output folder, random seed, device and processes of the run.
        store: pretrained embeddings that the command has loaded.
        fresh: whether to remove the folder of the run first and start from scratch.
        position: number of the run and of all runs of the command; "" if it is the only one.
        callbacks: names of the callbacks of installed packages that follow the run.
        watchers: loggers that receive each epoch, in addition to the trackers of the settings.
        report: function that reports the failure of a tracker.

    Raises:
        OutputError: the folder cannot be written.
        SharedRunFailed: the run failed and several processes train it.
    """
    with track_run(config, dataset, split, context, report) as tracking:
        meter = CostMeter(config, split)
        execute = partial(
            execute_run,
            leave_out_loggers(config),
            dataset,
            split,
            context,
            store,
            fresh=fresh,
            position=position,
            body=combine_and_rank if isinstance(config, CombinedRunConfig) else None,
        )
        folder = context.locate_run(config, split.dataset)
        with meter.count_tokens(), count_opening(folder, split.sha256):
            result = execute_with_plugins(
                config, split, context, callbacks, lambda added: execute(watchers=[tracking, meter, *watchers, *added])
            )
        if result.status == "success":
            result = replace(result, costs=meter.measure(result, context.choose_group(config).size, context.jobs))
            write_result(folder, result)
        tracking.finish(describe_outcome(result))
    return result
