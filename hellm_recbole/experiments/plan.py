"""Describe in one line what a command is about to run, and how long that took before on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from statistics import fmean

import torch

from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.jobs import RunJob
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, read_result
from hellm_recbole.experiments.run_config import TrainedRunConfig
from hellm_recbole.experiments.side_by_side import Places
from hellm_recbole.system import runtime
from hellm_recbole.system.columns import format_duration

_MAX_NAMED = 8  # number of names or seeds that the line lists


def describe_plan(jobs: Sequence[RunJob], earlier: Iterable[RunResult], places: Places | None = None) -> str:
    """Describe the runs of a command in one line.

    It names models, seeds and datasets, finished runs, runs that others read, epochs and the expected time.

    Args:
        jobs: jobs of the command, compared with the runs in their folders.
        earlier: results of earlier runs of the same models on the same datasets and on this machine.
        places: how many runs are executed at once; None if that is not known.
    """
    changed = {(job.dataset, job.context.seed, job.config.model) for job in jobs if job.finished is None}
    decided = [job for job in jobs if not _is_undecided(job, changed)]
    to_run = [job for job in decided if job.finished is None]
    n_finished, n_undecided = len(decided) - len(to_run), len(jobs) - len(decided)
    parts = [
        _count(len(jobs), "run"),
        f"models {_join(job.config.label for job in jobs)}",
        f"seeds {_join(str(job.context.seed) for job in jobs)}",
        f"datasets {_join(job.dataset for job in jobs)}",
    ]
    if n_finished:
        parts.append(f"{n_finished} finished before")
    if n_undecided:
        parts.append(f"{n_undecided} compared with earlier runs after the models that they read")
    if files := _describe_files(jobs):
        parts.append(f"embeddings from files: {files}")
    if to_run:
        if n_read := sum(job.is_pretrained for job in to_run):
            parts.append(f"{n_read} trained first, because other runs read their embeddings")
        if epochs := [job.config.train.epochs for job in to_run if isinstance(job.config, TrainedRunConfig)]:
            parts.append(f"at most {_count(max(epochs), 'epoch')} each")
        if n_combined := sum(not isinstance(job.config, TrainedRunConfig) for job in to_run):
            parts.append(
                f"{n_combined} not trained, because {'they combine' if n_combined > 1 else 'it combines'} scores"
            )
        n_beside = 1 if places is None else places.jobs
        if places is not None and n_beside > 1:
            parts.append(f"{n_beside} side by side with {_count(places.threads, 'thread')} each")
        parts.append(f"expected time {_describe_time(to_run, earlier, n_beside)}")
    return f"plan: {'; '.join(parts)}"


def _is_undecided(job: RunJob, changed: Set[tuple[str, int, str]]) -> bool:
    """Return whether it depends on other runs of the command whether an earlier run of this job is kept.

    Args:
        job: the job.
        changed: dataset, seed and model of each run that the command executes.
    """
    read = [*job.pretrained_runs, *(row.model for row in job.config.combined_runs)]
    reads_changed = any((job.dataset, job.context.seed, name) in changed for name in read)
    return job.deferred or (job.finished is not None and reads_changed)


def _describe_files(jobs: Sequence[RunJob]) -> str:
    """Describe which embeddings come from files, and that a run of such a model in the plan is not read."""
    files = {model: file for job in jobs for model, file in job.external.items()}
    trained = {job.config.model for job in jobs}
    own = " (its run in this plan is a row of its own that nothing reads)"
    return ", ".join(f"{model} from {file}{own if model in trained else ''}" for model, file in files.items())


def find_earlier_results(jobs: Iterable[RunJob], threads: int | None = None) -> list[RunResult]:
    """Find successful runs that tell how long the unfinished jobs take: same model, dataset, device and threads.

    A result that cannot be read is left out: the table reports it.

    Args:
        jobs: jobs of the command.
        threads: number of CPU threads of the jobs; None takes that of this process.
    """
    threads = torch.get_num_threads() if threads is None else threads
    folders = {job.folder.parent: runtime.describe_device(job.context.device) for job in jobs if job.finished is None}
    found = []
    for folder, device in folders.items():
        for path in sorted(folder.glob(f"*/{RECORD_FILE}")):
            try:
                result = read_result(path)
            except ResultError:
                continue
            if result.status == "success" and (result.device, result.threads) == (device, threads):
                found.append(result)
    return found


def _describe_time(jobs: Sequence[RunJob], earlier: Iterable[RunResult], n_beside: int) -> str:
    """Describe the time that jobs are expected to take; "unknown" if there is no earlier run of their models.

    `n_beside` runs are executed side by side: together they take at least as long as the longest one.
    """
    earlier = list(earlier)
    known_s, longest_s, unknown = 0.0, 0.0, dict[str, None]()
    for job in jobs:
        seconds = estimate_job_seconds(job, earlier)
        if seconds is None:
            unknown[job.config.label] = None
        else:
            known_s, longest_s = known_s + seconds, max(longest_s, seconds)
    if not known_s:
        return "unknown"
    expected = f"about {format_duration(max(known_s / n_beside, longest_s))}, from earlier runs"
    return f"{expected}; no earlier run of {_join(unknown)}" if unknown else expected


def estimate_job_seconds(job: RunJob, earlier: Iterable[RunResult]) -> float | None:
    """Estimate the seconds of a run from earlier runs of the same model on the same dataset; None if there are none.

    Args:
        job: the run.
        earlier: results of earlier runs on this machine, from `find_earlier_results`.
    """
    same = (result for result in earlier if (result.label, result.dataset) == (job.config.label, job.dataset))
    times = [seconds for result in same if (seconds := _estimate_seconds(job, result)) is not None]
    return fmean(times) if times else None


def _estimate_seconds(job: RunJob, result: RunResult) -> float | None:
    """Estimate the seconds of a run from an earlier one; None if that one has no times.

    With the same largest number of epochs, the run is expected to stop early at the same epoch. Otherwise it is
    expected to train to the last one, except for RecBole's models that make a single pass. A run that combines others
    takes as long as before.
    """
    if result.train_seconds is None or result.eval_seconds is None:
        return None
    if not isinstance(job.config, TrainedRunConfig):
        return result.train_seconds + result.eval_seconds
    if not result.epochs_run:
        return None
    epochs = job.config.train.epochs
    recorded = _find_value(result.settings, "epochs")
    one_pass = result.epochs_run == 1 and recorded != 1 and result.source == "recbole"  # as Pop and ItemKNN
    n_epochs = result.epochs_run if recorded == epochs or one_pass else epochs
    return (result.train_seconds + result.eval_seconds) / result.epochs_run * n_epochs


def _find_value(settings: Mapping[str, Mapping[str, object]], key: str) -> object:
    """Find the value of a recorded setting; None if it was not recorded."""
    return settings.get(key, {}).get("value")


def _count(number: int, noun: str) -> str:
    """Write a number and a noun.

    >>> _count(1, "run"), _count(3, "run")
    ('1 run', '3 runs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _join(names: Iterable[str]) -> str:
    """Join names, each once, and count those after the first ones."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _MAX_NAMED} more" if len(unique) > _MAX_NAMED else ""
    return ", ".join(unique[:_MAX_NAMED]) + more
