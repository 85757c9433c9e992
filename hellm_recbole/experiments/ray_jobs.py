"""Execute runs in parallel as tasks of a Ray cluster.

Ray is imported in the functions that need it, so that commands that do not use it start fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import take_last_line
from hellm_recbole.experiments.job_progress import open_view
from hellm_recbole.experiments.jobs import JobLocks, RunJob, report_outcome
from hellm_recbole.experiments.ray_cluster import connect_cluster, refuse_gpu_number, request_resources
from hellm_recbole.experiments.ray_worker import execute_job, execute_stored_job
from hellm_recbole.experiments.run import record_lost_run
from hellm_recbole.experiments.stored_work import StoredWork
from hellm_recbole.training.trackers.guard import report_once

MAX_RETRIES = 3  # number of restarts of a run whose worker died; it resumes from its last epoch
POLL_EVERY_S = 1.0

Part = TypeVar("Part", Dataset, Split)


@dataclass(frozen=True)
class RayRequest:
    """The options about Ray.

    Attributes:
        address: address of the cluster, see `connect_cluster`.
        n_cpus: number of CPUs of a local cluster; None takes all.
        device: the --device option; each worker chooses its device by it.
    """

    address: str
    n_cpus: int | None
    device: str


def run_on_ray(
    jobs: Sequence[RunJob],
    data: Mapping[str, tuple[Dataset, Split]],
    request: RayRequest,
    locks: JobLocks,
    stored: StoredWork | None = None,
) -> int:
    """Execute all runs as tasks of a Ray cluster. Return the number of failed runs.

    A task starts as soon as its resources are free and the runs that it reads have ended. If its worker
    dies, the task is restarted and resumes from the last epoch. A failed run does not stop the others. Without a
    storage, all nodes of the cluster need the results folder and the prepared data under the same paths.

    Args:
        jobs: jobs of the command; each comes after the runs that it reads.
        data: dataset name -> dataset and its split.
        request: the options about Ray.
        locks: locks of the runs; each is released when its run has ended.
        stored: the storage of the command; None if there is none.

    Raises:
        HellmError: there is no cluster at the address.
        SettingsError: a run requests more CPUs than any node has, or the device is a GPU with a number.
        StorageError: the storage cannot be used.
    """
    refuse_gpu_number(request.device)
    if stored is not None:
        jobs = [job for job in jobs if job.storage is not None]  # all others are finished
    with connect_cluster(request.address, request.n_cpus):
        import ray

        board: Any = ray.remote(num_cpus=0)(ProgressBoard).options(**_choose_own_node(request.address)).remote()
        shared = {
            name: ray.put(
                (_resolve_cache_path(dataset), _resolve_cache_path(split))
                if stored is None
                else stored.refer_to((dataset, split))
            )
            for name, (dataset, split) in data.items()
            if any(job.dataset == name for job in jobs)
        }
        running = _start_tasks(jobs, shared, request.device, board)
        return _wait_for_tasks(running, data, board, locks, stored)


def _choose_own_node(address: str) -> dict[str, Any]:
    """Return the options that put an actor on the node of the command, so that it outlives all other nodes."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if address.startswith("ray://"):  # the command is on no node
        return {}
    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def _start_tasks(jobs: Sequence[RunJob], shared: Mapping[str, Any], device: str, board: Any) -> dict[Any, RunJob]:
    """Start a task for each job. Return Ray's reference of each task -> its job.

    Args:
        jobs: jobs of the command; each comes after the runs that it reads.
        shared: dataset name -> Ray's reference of the dataset and its split, or of what a worker needs to fetch them.
        device: the --device option.
        board: the `ProgressBoard` of the tasks.

    Raises:
        SettingsError: a run requests more CPUs than any node has.
    """
    import ray

    requests = [  # before any run starts, because this may raise an error
        request_resources(job.config.resources.ray_cpus, job.config.resources.ray_gpus) for job in jobs
    ]
    running: dict[Any, RunJob] = {}
    started: dict[Path, Any] = {}  # folder of a run -> reference of its task
    for job, request in zip(jobs, requests, strict=True):
        read = (*job.pretrained_folders, *job.combined_folders)
        dependencies = [started[folder] for folder in read if folder in started]
        task: Any = ray.remote(execute_job if job.storage is None else execute_stored_job)
        task = task.options(num_cpus=request["cpu"], num_gpus=request["gpu"], max_retries=MAX_RETRIES, name=job.name)
        if job.storage is None:
            remote_job = replace(job, context=replace(job.context, output=job.context.output.resolve()))
            reference = task.remote(remote_job, shared[job.dataset], device, Path.cwd(), board, *dependencies)
        else:
            reference = task.remote(job, shared[job.dataset], device, board, *dependencies)
        running[reference] = job
        started[job.folder] = reference
    return running


def _resolve_cache_path(part: Part) -> Part:
    """Make the path of the cache folder absolute, so that a worker with another working folder finds it."""
    return replace(part, cache=None if part.cache is None else part.cache.resolve())


def _wait_for_tasks(
    running: dict[Any, RunJob],
    data: Mapping[str, tuple[Dataset, Split]],
    board: Any,
    locks: JobLocks,
    stored: StoredWork | None,
) -> int:
    """Show the progress of all tasks until they have ended. Return the number of failed runs.

    Args:
        running: Ray's reference of each task -> its job.
        data: dataset name -> dataset and its split.
        board: the `ProgressBoard` of the tasks.
        locks: locks of the runs; each is released when its run has ended.
        stored: the storage of the command; None if there is none.
    """
    import ray

    pending, done, failed = dict(running), 0, 0
    titles = {job.name: f"{number}/{len(running)} {job.name}" for number, job in enumerate(running.values(), start=1)}
    with open_view(len(running)) as show:
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=POLL_EVERY_S)
            for reference in ready:
                job = pending.pop(reference)
                problem = _get_problem(reference, job, data, stored)
                done += 1
                locks.release(job)
                failed += not report_outcome(job, problem)
            lines, warnings = ray.get([board.get_lines.remote(), board.get_warnings.remote()])
            for tracker, sentence in warnings.items():
                report_once(tracker, sentence)
            shown = [job.name for job in pending.values() if job.name in lines]
            show(done, failed, {titles[name]: lines[name] for name in shown})
    return failed


def _get_problem(
    reference: Any, job: RunJob, data: Mapping[str, tuple[Dataset, Split]], stored: StoredWork | None
) -> str | None:
    """Get how a task has ended, and fetch its run if it is in a storage. Return the description of the error, or None.

    Args:
        reference: Ray's reference of the task.
        job: its job.
        data: dataset name -> dataset and its split.
        stored: the storage of the command; None if there is none.
    """
    import ray

    try:
        problem: str | None = ray.get(reference)
    except ray.exceptions.RayError as error:
        if stored is not None and (lost := stored.collect(job)) is not None:
            return lost
        problem = _record_lost_task(job, data, error)
        if stored is not None:
            stored.push(job)
        return problem
    unfetched = None if stored is None else stored.collect(job)
    return unfetched if problem is None else problem


def _record_lost_task(job: RunJob, data: Mapping[str, tuple[Dataset, Split]], error: Exception) -> str:
    """Write the result of a run whose task ended without a return value. Return the reason of the failure."""
    import ray

    reason = (
        f"its Ray worker, or the worker of a pretrained model that it reads, died {MAX_RETRIES + 1} times "
        f"({type(error).__name__}), most often because memory ran out; the same command resumes from the last epoch"
        if isinstance(error, ray.exceptions.WorkerCrashedError | ray.exceptions.OutOfMemoryError)
        else take_last_line(error)
    )
    record_lost_run(job.config, *data[job.dataset], job.context, reason)
    return reason


class ProgressBoard:
    """The latest line of progress of each running job, and warnings, in a process of its own that all workers reach."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._warnings: dict[str, str] = {}

    def set_line(self, name: str, text: str) -> None:
        """Set the latest line of a job."""
        self._lines[name] = text

    def get_lines(self) -> dict[str, str]:
        """Return the latest line of each job, name -> line."""
        return self._lines

    def add_warning(self, tracker: str, sentence: str) -> None:
        """Keep the first warning about a tracker that failed in a worker."""
        self._warnings.setdefault(tracker, sentence)

    def get_warnings(self) -> dict[str, str]:
        """Return the first warning about each tracker, name -> sentence."""
        return self._warnings
