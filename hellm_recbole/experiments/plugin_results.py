"""What plug-ins and splits add to a run: callbacks while it is trained, metrics, and names and counts in its result.

Nothing here changes a number of the run itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hellm_recbole.data.split import Split
from hellm_recbole.data.splits.named import NamedSplit
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.record_parts import Metrics
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, read_result, write_result
from hellm_recbole.experiments.run_config import OwnRunConfig, RunConfig
from hellm_recbole.plugins.callbacks import CallbackGroup, RunEnd, RunInfo, describe_callbacks
from hellm_recbole.plugins.loading import PluginRecord, make_record
from hellm_recbole.plugins.metrics import compute_plugin_metrics, load_metrics, sort_target_ranks
from hellm_recbole.plugins.models import describe_model
from hellm_recbole.plugins.splits import describe_split
from hellm_recbole.training.loggers import Logger


def execute_with_plugins(
    config: RunConfig,
    split: Split,
    context: RunContext,
    callbacks: Sequence[str],
    execute: Callable[[Sequence[Logger]], RunResult],
) -> RunResult:
    """Execute a run with its callbacks, and add metrics and names of plug-ins to its result.

    Args:
        config: config of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        callbacks: names of the callbacks.
        execute: function that executes the run with further loggers and writes its result.

    Raises:
        PluginError: a callback is unknown or cannot be made.
    """
    group = CallbackGroup(callbacks)
    settings = dict(config.resolved.values)
    group.begin(RunInfo(config.label, split.dataset, context.seed, config.preset, settings))
    try:
        result = execute([group])
    except BaseException as error:
        status = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed"
        group.end(RunEnd(status, str(error) or type(error).__name__, None, {}, {}))
        raise
    result = _add_plugins(result, context.locate_run(config, split.dataset), config, split, callbacks)
    metrics = result.metrics
    group.end(RunEnd(result.status, result.reason, result.best_epoch, dict(metrics["valid"]), dict(metrics["test"])))
    return result


def _add_plugins(
    result: RunResult, folder: Path, config: RunConfig, split: Split, callbacks: Sequence[str]
) -> RunResult:
    """Add the metrics of plug-ins, the names of all that took part and what the split left out, and write it again.

    A result without any of these stays as it is.

    Args:
        result: result of the run.
        folder: folder of the run.
        config: config of the run.
        split: split of the dataset.
        callbacks: names of the callbacks of the run.
    """
    records: list[PluginRecord | None] = [describe_split(split.kind)]
    if isinstance(config, OwnRunConfig):
        records.append(describe_model(config.spec))
    records += describe_callbacks(callbacks)
    metrics = None
    if load_metrics() and result.status == "success":
        phases = read_ranks(folder / result.ranks, result.ranks_sha256)
        metrics = {
            name: compute_plugin_metrics(
                sort_target_ranks(phase.user, phase.rank, phase.item_count, result.n_candidates), result.cutoffs
            )
            for name, phase in phases.items()
        }
        used = {name.partition("@")[0] for values in metrics.values() for name in values}
        records += [make_record("metric", name, load_metrics()[name].point) for name in sorted(used)]
    plugins = tuple(record for record in records if record is not None)
    details = split.details if isinstance(split, NamedSplit) else None
    if not plugins and details is None:
        return result
    valid, test = (metrics or {}).get("valid", {}), (metrics or {}).get("test", {})
    added: Metrics | None = {"valid": valid, "test": test} if valid or test else None
    result = replace(result, plugins=plugins, plugin_metrics=added, split_details=details)
    write_result(folder, result)
    return result


def refuse_other_splits(output: Path, split: Split) -> None:
    """Refuse a folder of results with runs on another kind of split, before anything is trained.

    Args:
        output: folder of all results.
        split: split of this command.

    Raises:
        ResultError: there is such a run.
    """
    for path in sorted((output / split.dataset).glob(f"*/*/{RECORD_FILE}")):
        try:
            kind = read_result(path).split_kind
        except ResultError:  # reported when its run has its turn
            continue
        if kind != split.kind:
            raise ResultError(
                f"{path} has the split {kind}, and this command has {split.kind}; results of two kinds of split cannot "
                "share a table, so choose another --output"
            )
