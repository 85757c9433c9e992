"""What the trackers of a run get: its curves, and at its end the test metrics, the chosen epoch and its tags.

This is above `run.py`, so that every kind of run is tracked: trained and fitted models, models of RecBole, and combined
rows. A run that is only read from its record is not tracked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hellm_recbole.config.harness_settings import LogSettings
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import shorten
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.logger_check import choose_loggers
from hellm_recbole.experiments.recording import collect_initial_fields
from hellm_recbole.experiments.results import RunResult, list_result_parts
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.identity.compare import digest_parts
from hellm_recbole.training.trackers.base import Outcome, TrackedRun
from hellm_recbole.training.trackers.guard import GuardedTracker, Report, report_once

# Tag -> key of the run result.
_TAGS = {
    "dataset": "dataset",
    "split": "split_kind",
    "split_hash": "split_hash",
    "mask_policy": "mask_history",
    "seed": "seed",
    "preset": "preset",
    "backbone": "backbone",
    "git_commit": "git_commit",
    "git_dirty": "git_dirty",
    "device": "device",
}


class RunTracking:
    """The trackers of one run; a logger that passes each epoch to them (`training.loggers.Logger`).

    Args:
        trackers: trackers of the run.
    """

    def __init__(self, trackers: Sequence[GuardedTracker]) -> None:
        self._trackers = trackers

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Tell all trackers that an epoch has begun."""
        for tracker in self._trackers:
            tracker.step(epoch, step, n_steps)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Log the values of one epoch."""
        for tracker in self._trackers:
            tracker.log(epoch, values)

    def close(self) -> None:
        """Do nothing: the run has not ended with its training."""

    def finish(self, outcome: Outcome) -> None:
        """Log how the run has ended."""
        for tracker in self._trackers:
            tracker.finish(outcome)


@contextmanager
def track_run(
    config: RunConfig, dataset: Dataset, split: Split, context: RunContext, report: Report = report_once
) -> Iterator[RunTracking]:
    """Track a run in the block; at the end of the block, call `RunTracking.finish` with `describe_outcome`.

    A run whose block ends with an exception is logged as cancelled or failed.

    Args:
        config: config of the run.
        dataset: dataset of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        report: function that reports the failure of a tracker.

    Raises:
        MissingDependency: the package of a tracker is not installed.
    """
    names = choose_loggers(config)
    trackers: list[GuardedTracker] = []
    if names:
        tracked = TrackedRun(
            name=f"{split.dataset}/{config.label}/{context.seed}",
            folder=context.locate_run(config, split.dataset),
            settings=config.reproducibility_settings(),
            tags=make_tags(config.label, collect_initial_fields(config, dataset, split, context)),
        )
        trackers = [GuardedTracker(name, tracked, report) for name in names]
    tracking = RunTracking(trackers)
    try:
        yield tracking
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        reason = "stopped" if stopped else shorten(str(error))
        tracking.finish(Outcome("cancelled" if stopped else "failed", {}, {"reason": reason}))
        raise


def leave_out_loggers(config: RunConfig) -> RunConfig:
    """Return a run config without loggers of its own, for a run that is tracked from outside.

    The record of the run keeps the setting: it comes from `config.resolved`.
    """
    return replace(config, log=LogSettings(loggers=()))


def make_tags(model: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Make the tags that are known before a run.

    Args:
        model: name of the run in tables.
        fields: fields of the run result.
    """
    found = {tag: fields.get(key) for tag, key in _TAGS.items()}
    texts = {tag: _format_tag(value) for tag, value in found.items() if value is not None}
    return {"model": model, **texts}


def describe_outcome(result: RunResult) -> Outcome:
    """Describe the end of a run: test metrics, validation metrics of the chosen epoch, its number, times and identity.

    Args:
        result: result of the run.
    """
    summary = {f"test/{name}": value for name, value in _collect_metrics(result, "test").items()}
    summary |= {f"best_valid/{name}": value for name, value in _collect_metrics(result, "valid").items()}
    numbers = {
        "best_epoch": result.best_epoch,
        "epochs_run": result.epochs_run,
        "train_seconds": result.train_seconds,
        "eval_seconds": result.eval_seconds,
        "parameters": result.parameters["total"],
    }
    summary |= {name: value for name, value in numbers.items() if value is not None}
    tags = {} if result.reason is None else {"reason": shorten(result.reason)}
    if (parts := list_result_parts(result)) is not None:
        tags["identity"] = digest_parts(parts)
    if result.ranks_sha256 is not None:
        tags["ranks_sha256"] = result.ranks_sha256
    return Outcome(result.status, summary, tags, result.best_epoch or 0)


def _collect_metrics(result: RunResult, phase: str) -> dict[str, float]:
    """Collect the metrics of a phase, with those of plug-ins."""
    added: Any = result.plugin_metrics or {}
    return {**result.metrics[phase], **added.get(phase, {})}  # type: ignore[literal-required]


def _format_tag(value: object) -> str:
    """Format a value as trackers show it: booleans as in JSON."""
    return str(value).lower() if isinstance(value, bool) else str(value)
