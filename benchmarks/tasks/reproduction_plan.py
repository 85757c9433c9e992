"""The plan of reproduce.py: which runs and studies of an experiment are there, and how long the others take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tabulate import tabulate

from hellm_recbole.config.request import LOCAL, RunRequest
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.context import CHECKPOINT, RunContext
from hellm_recbole.experiments.earlier_search import is_started
from hellm_recbole.experiments.jobs import RunJob
from hellm_recbole.experiments.plan import estimate_job_seconds, find_earlier_results
from hellm_recbole.experiments.resolve import Resolver, is_pretrained_model
from hellm_recbole.experiments.results import RECORD_FILE, read_result
from hellm_recbole.experiments.run_config import TrainedRunConfig
from hellm_recbole.experiments.sweeps import SEARCH_FILE, SearchResult, find_searches, locate_search
from hellm_recbole.report.studies import PREFIX, Study
from hellm_recbole.system import runtime
from hellm_recbole.system.columns import format_duration

FINISHED = "finished"
_PLURALS = {"run": "runs", "study": "studies"}
_DELETED = "deleted and run again (--fresh)"
_STOPPED, _FAILED, _MISSING = "stopped before it finished", "failed before", "missing"
_STATES = {"success": FINISHED, "cancelled": _STOPPED, "failed": _FAILED}  # by status of the record
# The plan compares no inputs, so it can only say on what condition earlier work is used.
_CONDITIONS = {
    FINISHED: "a finished {noun} is kept if its settings and inputs have not changed",
    _STOPPED: "a stopped {noun} is resumed if nothing that it depends on has changed",
    _FAILED: "a failed {noun} is run again, from its checkpoint if nothing that it depends on has changed",
}


@dataclass(frozen=True)
class PlannedWork:
    """A run or a study of an experiment.

    Attributes:
        name: what the plan calls it.
        state: `FINISHED`, or what else is there.
        seconds: expected time until it has ended; None if it is unknown. A finished one has 0.
    """

    name: str
    state: str
    seconds: float | None


def list_run_jobs(resolver: Resolver, models: Sequence[str], request: RunRequest) -> list[RunJob]:
    """List the runs of some models on one dataset, with the pretrained models that they read.

    Args:
        resolver: resolver of the run configs on the dataset.
        models: names of the runs.
        request: seeds, folder and device of the runs.

    Raises:
        HellmError: a model or a setting is wrong, or there is no such device.
    """
    configs = resolver.resolve_with_pretrained(models)
    device = runtime.choose_device(request.device)
    return [
        RunJob(
            config=config,
            context=RunContext(request.output, seed, device),
            fresh=request.fresh and config.model in models,
            exports=(),
            is_pretrained=is_pretrained_model(config, configs),
            dataset=resolver.dataset,
        )
        for seed in request.seeds
        for config in configs
    ]


def plan_runs(jobs: Sequence[RunJob], models: Sequence[str], *, in_this_process: bool) -> list[PlannedWork]:
    """Plan runs from the files that are there; no dataset is read.

    Args:
        jobs: the runs.
        models: names of the runs that are rows of the table; others are run because these read their embeddings.
        in_this_process: whether the runs are executed here, one after the other, so that earlier times tell theirs.
    """
    states = [_find_run_state(job) for job in jobs]
    missing = [job for job, state in zip(jobs, states, strict=True) if state != FINISHED]
    earlier = find_earlier_results(missing) if in_this_process else []
    return [
        PlannedWork(
            f"{job.config.label}, seed {job.context.seed}"
            + ("" if job.config.model in models else " (its embeddings are read)"),
            state,
            0.0 if state == FINISHED else estimate_job_seconds(job, earlier),
        )
        for job, state in zip(jobs, states, strict=True)
    ]


def _find_run_state(job: RunJob) -> str:
    """Find out from its files what is left to do for a run."""
    record = job.folder / RECORD_FILE
    if job.fresh and job.folder.exists():
        return _DELETED
    if record.exists():
        try:
            return _STATES[read_result(record).status]
        except ResultError:
            return "its record cannot be read"
    return _STOPPED if _is_stopped(job.folder) else _MISSING


def _is_stopped(folder: Path) -> bool:
    """Return whether a run was stopped without time to write its record: it has a checkpoint and no record."""
    return (folder / CHECKPOINT).is_dir() and not (folder / RECORD_FILE).exists()


def find_stopped_runs(output: Path, dataset: str, labels: Iterable[str]) -> frozenset[str]:
    """Find the labels with a run, of any seed, that was stopped and has no record, for a table of what is there.

    Args:
        output: folder of all results.
        dataset: name of the dataset.
        labels: labels of the runs.
    """
    folders = {label: (output / dataset / label).glob("*") for label in labels}
    return frozenset(label for label, seeds in folders.items() if any(map(_is_stopped, seeds)))


def plan_studies(
    config: TrainedRunConfig, dataset: str, studies: Mapping[str, Study], request: RunRequest
) -> list[PlannedWork]:
    """Plan studies from the files that are there; no dataset is read.

    Args:
        config: run config of the studies.
        dataset: name of the dataset.
        studies: name -> study.
        request: folder, threads and cluster.
    """
    runs_here = request.ray in (None, LOCAL)
    trial_s = _estimate_trial_seconds(config, dataset, request) if runs_here else None
    n_parallel = max(1, int((request.threads or os.cpu_count() or 1) / config.resources.ray_cpus))
    planned = []
    for name, study in studies.items():
        state = _find_study_state(locate_study(request.output, dataset, config, name), fresh=request.fresh)
        n_rounds = -(-study.n_points // n_parallel)
        seconds = 0.0 if state == FINISHED else None if trial_s is None else trial_s * n_rounds
        planned.append(PlannedWork(f"{name}, {study.n_points} trials of {config.label}", state, seconds))
    return planned


def locate_study(output: Path, dataset: str, config: TrainedRunConfig, name: str) -> Path:
    """Return the folder of the search of a study."""
    return locate_search(output, dataset, config.label, f"{PREFIX}{name}")


def _find_study_state(folder: Path, *, fresh: bool) -> str:
    """Find out from its files what is left to do for a study."""
    if fresh and folder.exists():
        return _DELETED
    if (folder / SEARCH_FILE).exists():
        return FINISHED
    return _STOPPED if is_started(folder) else _MISSING


def _estimate_trial_seconds(config: TrainedRunConfig, dataset: str, request: RunRequest) -> float | None:
    """Estimate the seconds of one trial: from studies of as many epochs, else from an earlier run of the model."""
    searches = find_searches(request.output, dataset)
    alike = [search for search in searches if search.row == config.label and _has_epochs(search, config)]
    times = [trial["seconds"] for search in alike for trial in search.trials if trial["status"] == "ended"]
    if times:
        return fmean(times)
    context = RunContext(request.output, request.seeds[0], runtime.choose_device(request.device))
    job = RunJob(config, context, True, (), False, dataset)
    return estimate_job_seconds(job, find_earlier_results([job], threads=max(1, int(config.resources.ray_cpus))))


def _has_epochs(search: SearchResult, config: TrainedRunConfig) -> bool:
    """Return whether the trials of a search had the same largest number of epochs as this run config."""
    return search.settings.get("epochs") == config.train.epochs


def describe_work(title: str, planned: Sequence[PlannedWork], noun: str) -> str:
    """Describe a plan: a line for each run or study, their number and the expected time in all, and what is not known.

    Args:
        title: title of the experiment, with the dataset.
        planned: runs or studies.
        noun: what one of them is called: "run" or "study".
    """
    lines = [[work.name, work.state, _describe_seconds(work)] for work in planned]
    table = tabulate(lines, ["", "state", "expected time"], tablefmt="plain", disable_numparse=True)
    to_run = [work for work in planned if work.state != FINISHED]
    counted = f"{len(planned)} {noun if len(planned) == 1 else _PLURALS[noun]}"
    total = f"plan: {counted}; {len(planned) - len(to_run)} finished, {len(to_run)} to run"
    known = [work.seconds for work in to_run if work.seconds is not None]
    if to_run:
        unknown = len(to_run) - len(known)
        expected = f"about {format_duration(sum(known))}" if known else "unknown"
        total += f"; expected time in all {expected}"
        if known and unknown:
            total += f", and {unknown} of unknown time, because no earlier run tells it"
    return "\n".join([title, table, total, *_describe_conditions(planned, noun)])


def _describe_conditions(planned: Sequence[PlannedWork], noun: str) -> list[str]:
    """Describe on what condition earlier runs or studies are used, in one line; none if there are no earlier ones."""
    states = {work.state for work in planned}
    conditions = [text.format(noun=noun) for state, text in _CONDITIONS.items() if state in states]
    if not conditions:
        return []
    return [
        f"not compared yet: {'; '.join(conditions)}; otherwise the command refuses it, and --fresh starts from scratch"
    ]


def _describe_seconds(work: PlannedWork) -> str:
    """Describe the expected time of a run or a study."""
    if work.state == FINISHED:
        return ""
    return "unknown" if work.seconds is None else f"about {format_duration(work.seconds)}"
