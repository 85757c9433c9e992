"""Jobs of a command: lock a run, compare it with an earlier one, execute it if needed, and write its exports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.embeddings import needs_export
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, ResultError
from hellm_recbole.experiments.changed_features import change_split
from hellm_recbole.experiments.components import is_finished
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.export import export_run
from hellm_recbole.experiments.finished import (
    describe_finished_run,
    find_finished_run,
    refuse_changed_checkpoint,
    refuse_lost_files,
)
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.measured_run import execute_and_measure
from hellm_recbole.experiments.pretrained import PretrainedStore, locate_pretrained
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, read_result
from hellm_recbole.experiments.run_config import LLMRunConfig, OwnRunConfig, RunConfig
from hellm_recbole.experiments.stored_runs import keep_in_storage
from hellm_recbole.system.console import print_error
from hellm_recbole.system.files import check_removable, remove_leftovers
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.training.loggers import Logger
from hellm_recbole.training.trackers.guard import Report, report_once


@dataclass(frozen=True)
class RunJob:
    """One run that a command is responsible for, whether it is already finished or not.

    Attributes:
        config: config of the run.
        context: output folder, random seed, device and processes of the run.
        fresh: whether to run it from scratch even if it is finished or has a checkpoint.
        exports: names of the exports to write after the run.
        is_pretrained: whether another run reads its embeddings.
        dataset: name of the dataset.
        export_k: number of items in an exported test list; None takes the largest cut-off of the run.
        finished: result of the run if it was finished before the command started.
        deferred: whether the run is compared with the earlier one only when its turn comes, because this command first
            makes or changes the embeddings that it reads; see `check_earlier_runs`.
        position: number of the run among all runs of the command, such as "3/15".
        callbacks: names of the callbacks of installed packages that follow the run.
        external: pretrained model that the run reads -> name of the file that its embeddings come from.
        storage: URI of the storage to which the run is handed back; None if there is none.
    """

    config: RunConfig
    context: RunContext
    fresh: bool
    exports: tuple[str, ...]
    is_pretrained: bool
    dataset: str
    export_k: int | None = None
    finished: RunResult | None = None
    deferred: bool = False
    position: str = ""
    external: Mapping[str, str] = field(default_factory=dict)
    callbacks: tuple[str, ...] = ()
    storage: str | None = None

    @property
    def name(self) -> str:
        """Name of the job in messages."""
        return f"{self.config.label} on {self.dataset}, seed {self.context.seed}"

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.context.locate_run(self.config, self.dataset)

    @property
    def pretrained_runs(self) -> list[str]:
        """Pretrained models whose runs this run reads; the embeddings of others come from files."""
        return [model for model in self.config.pretrained_models if model not in self.external]

    @property
    def combined_folders(self) -> list[Path]:
        """Folders of the runs whose scores this run combines."""
        return [self.context.locate_run(row, self.dataset) for row in self.config.combined_runs]

    @property
    def pretrained_folders(self) -> list[Path]:
        """Folders of the runs whose embeddings this run reads."""
        return [
            locate_pretrained(self.context.output, self.dataset, model, self.context.seed)
            for model in self.pretrained_runs
        ]


def announce_removals(folders: Sequence[Path], root: Path) -> None:
    """Print what `--fresh` is about to remove, one line per folder, before anything is removed.

    Args:
        folders: folders of the runs or hyper-parameter searches that start from scratch.
        root: folder of all results.

    Raises:
        OutputError: one of the folders is not inside `root`.
    """
    existing = [folder for folder in folders if folder.is_symlink() or folder.exists()]
    for folder in existing:
        check_removable(folder, root)
    for folder in existing:
        what = "the link (not its target)" if folder.is_symlink() else "everything in"
        print(f"--fresh removes {what} {folder}", flush=True)


class JobLocks:
    """Locks on the folders of the runs that this command works on. Each is held until its run has ended.

    A finished run that is only read is not locked, so that several commands can read it at the same time.
    """

    def __init__(self) -> None:
        self._locks: dict[Path, FolderLock] = {}

    def acquire(self, jobs: Sequence[RunJob]) -> None:
        """Lock all runs that have something left to do, before any run starts.

        Raises:
            OutputError: another process works on one of these runs.
        """
        for job in jobs:
            if job.folder not in self._locks and needs_work(job):
                lock = FolderLock(job.folder, job.name)
                lock.acquire()
                self._locks[job.folder] = lock
                if not needs_work(job):  # another process finished it in the meantime
                    self.release(job)

    def release(self, job: RunJob) -> None:
        """Release the lock of a run that has ended."""
        if (lock := self._locks.pop(job.folder, None)) is not None:
            lock.release()

    def __enter__(self) -> JobLocks:
        return self

    def __exit__(self, *_: object) -> None:
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()


def needs_work(job: RunJob) -> bool:
    """Return whether a job has to write into the folder of its run."""
    if job.fresh or job.exports or (job.is_pretrained and needs_export(job.folder / EMBEDDINGS)):
        return True
    try:
        return read_result(job.folder / RECORD_FILE).status != "success"
    except ResultError:
        return True


def check_earlier_runs(
    jobs: Sequence[RunJob], data: Mapping[str, tuple[Dataset, Split]], store: PretrainedStore
) -> list[RunJob]:
    """Compare jobs with the earlier runs in their folders, before any run starts; see `check_earlier_run`.

    Args:
        jobs: jobs of the command.
        data: dataset name -> dataset and its split.
        store: pretrained embeddings that the command has loaded; it keeps those that a job will read again.

    Returns:
        The jobs with the results of the finished runs. A finished run is compared again when its turn comes if a
        pretrained model that it reads, or a run that it combines, is executed before it.

    Raises:
        HellmError: something that an earlier run depends on has changed since.
    """
    checked: list[RunJob] = []
    executed: set[Path] = set()  # folders of runs that will be executed
    for index, job in enumerate(jobs):
        found = check_earlier_run(job, data[job.dataset][1], store)
        if found.finished is None:
            executed.add(job.folder)
        elif executed.intersection([*job.pretrained_folders, *job.combined_folders]):
            found = replace(found, deferred=True)
        checked.append(found)
        _forget_unread_embeddings(store, job, [*checked, *jobs[index + 1 :]])
    return checked


def _forget_unread_embeddings(store: PretrainedStore, job: RunJob, later: Iterable[RunJob]) -> None:
    """Drop the embeddings that a job has read and that no later job reads.

    Args:
        store: pretrained embeddings that the command has loaded.
        job: the job.
        later: jobs whose turn comes later; a run that is finished reads embeddings again only for its exports.
    """
    reading = (other for other in later if other.finished is None or other.deferred or other.exports)
    for folder in {*job.pretrained_folders}.difference(*(other.pretrained_folders for other in reading)):
        store.forget(folder)


def check_earlier_run(job: RunJob, split: Split, store: PretrainedStore) -> RunJob:
    """Compare a job with an earlier run in its folder, before any run starts.

    Print that a finished run is kept, or refuse a run that cannot be resumed.

    Args:
        job: the job.
        split: split of the dataset.
        store: pretrained embeddings that the command has loaded.

    Returns:
        The job with the result of the finished run. If the run reads embeddings that are not
        exported yet, or combines runs that are not finished, the comparison is not possible, and the job is deferred.

    Raises:
        ResultError: the earlier run is finished, but something that it depends on has changed since. Or it has read
            embeddings from a file, and now a pretrained model would be trained instead.
        CheckpointError: the earlier run is unfinished, and something that it depends on has changed since.
        ModelError: pretrained embeddings that the run reads are missing.
        DataError: the language model cannot be loaded.
    """
    if job.fresh:
        return job
    split = change_split(job.config, split, job.context.seed)
    missing = [
        model
        for model, folder in zip(job.pretrained_runs, job.pretrained_folders, strict=True)
        if needs_export(folder / EMBEDDINGS) or not (folder / RECORD_FILE).exists()
    ]
    if missing:
        refuse_lost_files(job.folder, missing)
    unfinished = [folder for folder in job.combined_folders if not is_finished(folder)]
    if (missing or unfinished) and (job.folder / RECORD_FILE).exists():
        return replace(job, deferred=True)
    finished = find_finished_run(job.config, split, job.context, store)
    if finished is None:
        refuse_changed_checkpoint(job.config, split, job.context)
    else:
        print(f"{job.name}: {describe_finished_run(finished, job.external)}")
    return replace(job, finished=finished)


def check_language_model(check: LanguageModelCheck, config: OwnRunConfig, split: Split) -> None:
    """Refuse a language model that an LLM run cannot use.

    Raises:
        HellmError: the language model cannot be used; the message names the run and says why.
    """
    try:
        check.check(config.model_settings, split.item_text)
    except HellmError as error:
        raise type(error)(f"{config.label} on {split.dataset}: {error}") from error


def check_language_models(
    jobs: Sequence[RunJob], data: Mapping[str, tuple[Dataset, Split]], *, trains_here: bool
) -> None:
    """Refuse a language model that a run cannot use, before the pretrained models of the run are trained.

    Args:
        jobs: jobs of the command.
        data: dataset name -> dataset and its split.
        trains_here: whether this process trains the runs, so that its devices are checked.

    Raises:
        HellmError: a language model cannot be used; the message says why.
    """
    check, checked = LanguageModelCheck(trains_here=trains_here), set()
    for job in jobs:
        key = (job.config.label, job.dataset)
        if isinstance(job.config, LLMRunConfig) and key not in checked and needs_work(job):
            check_language_model(check, job.config, data[job.dataset][1])
            checked.add(key)


def execute_jobs(jobs: Sequence[RunJob], data: tuple[Dataset, Split], store: PretrainedStore, locks: JobLocks) -> int:
    """Execute jobs on one dataset one after the other. Return the number of failed runs.

    Args:
        jobs: jobs on the dataset; pretrained models come before the models that read them.
        data: the dataset and its split.
        store: pretrained embeddings that the command has loaded; each is dropped after the last job that reads it.
        locks: locks of the runs; each is released when its run has ended.

    Raises:
        OutputError: a folder cannot be written.
        SharedRunFailed: a run failed and several processes train it.
    """
    failed = 0
    for index, job in enumerate(jobs):
        failed += not report_outcome(job, run_job(job, *data, store))
        locks.release(job)
        _forget_unread_embeddings(store, job, jobs[index + 1 :])
    return failed


def run_job(
    job: RunJob,
    dataset: Dataset,
    split: Split,
    store: PretrainedStore,
    watchers: Sequence[Logger] = (),
    report: Report = report_once,
) -> str | None:
    """Execute a run unless it is finished, then write its exports and the embeddings that other runs read.

    Args:
        job: the run and its exports.
        dataset: dataset of the run.
        split: split of the dataset.
        store: pretrained embeddings that the command has loaded.
        watchers: loggers that receive each epoch, in addition to the trackers of the settings.
        report: function that reports the failure of a tracker.

    Returns:
        Description of the error; None if there was no error.

    Raises:
        OutputError: the folder cannot be written.
        SharedRunFailed: the run failed and several processes train it.
        StorageError: the storage of the run does not answer.
    """
    return keep_in_storage(
        job.storage, job.folder, lambda keepers: _run_job(job, dataset, split, store, (*watchers, *keepers), report)
    )


def _run_job(
    job: RunJob, dataset: Dataset, split: Split, store: PretrainedStore, watchers: Sequence[Logger], report: Report
) -> str | None:
    """Execute a run on this machine; see `run_job`."""
    remove_leftovers(job.folder)
    split = change_split(job.config, split, job.context.seed)
    result = job.finished
    if job.deferred:
        try:
            result = find_finished_run(job.config, split, job.context, store)
        except HellmError as error:
            return str(error)
        if result is not None and job.finished is None:
            print(f"{job.name}: {describe_finished_run(result, job.external)}")
    if result is None:
        store.forget(job.folder)
        result = execute_and_measure(
            job.config,
            dataset,
            split,
            job.context,
            store,
            fresh=job.fresh,
            position=job.position,
            callbacks=job.callbacks,
            watchers=watchers,
            report=report,
        )
    if result.status != "success":
        return result.reason
    return _write_exports(job, split, store)


def _write_exports(job: RunJob, split: Split, store: PretrainedStore) -> str | None:
    """Write the exports of a finished run, and its embeddings if other runs read them.

    Returns:
        Description of the error; None if there was no error.
    """
    exports = set(job.exports)
    if job.is_pretrained and needs_export(job.folder / EMBEDDINGS):
        if (job.folder / EMBEDDINGS).exists():
            print(f"{job.name}: its embeddings are of an earlier version and are exported again from the checkpoint")
        exports.add(EMBEDDINGS)
    if EMBEDDINGS in exports:
        store.forget(job.folder)
    if exports:
        try:
            export_run(job.config, split, job.context, store, exports, job.export_k)
        except HellmError as error:
            return f"export: {error}"
    return None


def report_outcome(job: RunJob, problem: str | None) -> bool:
    """Print the error of a job, if there is one. Return whether there was no error."""
    if problem is not None:
        print_error(f"{job.name}: {problem}")
    return problem is None
