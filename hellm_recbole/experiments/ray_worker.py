"""Execute a run in a Ray worker: in the folders of the command, or on a machine that shares none, from a storage."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError
from hellm_recbole.experiments.job_progress import ProgressReporter
from hellm_recbole.experiments.jobs import RunJob, run_job
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.ray_cluster import enter_worker
from hellm_recbole.experiments.run_config import TrainedRunConfig
from hellm_recbole.experiments.stored_runs import StoredRun
from hellm_recbole.experiments.stored_work import DataReference, list_read_folders, load_referred
from hellm_recbole.identity.weights import find_cache_root
from hellm_recbole.system import runtime
from hellm_recbole.system.files import ensure_folder
from hellm_recbole.system.storage import Storage
from hellm_recbole.training.loggers import Logger


def execute_job(
    job: RunJob, data: tuple[Dataset, Split], device: str, folder: Path, board: Any, *dependencies: str | None
) -> str | None:
    """Execute a job in the process of a worker, see `run_job`.

    Args:
        job: the job.
        data: dataset of the run and its split.
        device: the --device option.
        folder: working folder of the command.
        board: the `ProgressBoard` of the tasks.
        dependencies: return values of the tasks of the runs that it reads; Ray waits for them first.

    Returns:
        Description of the error; None if there was no error.
    """
    enter_worker(folder, job.config.resources.ray_cpus)
    job = replace(job, context=replace(job.context, device=runtime.choose_device(device), jobs=None))
    watchers: list[Logger] = []
    if isinstance(job.config, TrainedRunConfig):
        watchers.append(ProgressReporter(job, lambda text: board.set_line.remote(job.name, text)))
    else:
        board.set_line.remote(job.name, "combining scores")
    try:
        return run_job(
            job,
            *data,
            PretrainedStore(),
            watchers=watchers,
            report=lambda tracker, sentence: board.add_warning.remote(tracker, sentence),
        )
    except HellmError as error:
        return str(error)


def execute_stored_job(
    job: RunJob, reference: DataReference, device: str, board: Any, *dependencies: str | None
) -> str | None:
    """Execute a job in a worker: fetch what it reads, work in the cache of this machine, hand the run back.

    Args:
        job: the job, with its storage.
        reference: its dataset.
        device: the --device option.
        board: the `ProgressBoard` of the tasks.
        dependencies: return values of the tasks of the runs that it reads; Ray waits for them first.

    Returns:
        Description of the error; None if there was no error.
    """
    assert job.storage is not None
    cache = find_cache_root().absolute() / "storage"
    work = cache / "runs" / reference.command / job.dataset / job.config.label / str(job.context.seed)
    here = replace(job, context=replace(job.context, output=work))
    try:
        ensure_folder(cache, "HELLM_CACHE")
        storage = Storage(job.storage)
        data = load_referred(storage, reference, cache / "data")
        for folder in list_read_folders(here):
            StoredRun(storage, folder).pull(always=True)
        StoredRun(storage, here.folder).pull()
    except HellmError as error:
        return str(error)
    problem = execute_job(here, data, device, cache, board, *dependencies)
    if problem is None:  # all of it is in the storage now
        shutil.rmtree(work, ignore_errors=True)
    return problem
