"""Jobs of a command: lock a run, compare it with an earlier one, execute it if needed, and write its exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.embeddings import needs_export
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, ResultError
from hellm_recbole.experiments.export import export_run
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.pretrained import locate_pretrained
from hellm_recbole.experiments.resolve import RunConfig, locate_run
from hellm_recbole.experiments.results import RECORD_FILE, read_result
from hellm_recbole.experiments.run import (
    RunContext,
    describe_finished_run,
    execute_run,
    find_finished_run,
    refuse_changed_checkpoint,
)
from hellm_recbole.system.console import print_error
from hellm_recbole.system.files import check_removable, remove_leftovers
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.training.loggers import Logger


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
        deferred: whether the comparison with an earlier run has to wait until the job is executed; see
            `check_earlier_run`.
    """

    config: RunConfig
    context: RunContext
    fresh: bool
    exports: tuple[str, ...]
    is_pretrained: bool
    dataset: str
    export_k: int | None = None
    deferred: bool = False

    @property
    def name(self) -> str:
        """Name of the job in messages."""
        return f"{self.config.label} on {self.dataset}, seed {self.context.seed}"

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return locate_run(self.context.output, self.dataset, self.config, self.context.seed)


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


def check_earlier_run(job: RunJob, split: Split) -> bool:
    """Compare a job with an earlier run in its folder, before any run starts.

    Print that a finished run is kept, or refuse a run that cannot be resumed.

    Returns:
        Whether the comparison was possible. It is not if the run reads embeddings that are not exported yet.

    Raises:
        ResultError: the earlier run is finished, but something that it depends on has changed since.
        CheckpointError: the earlier run is unfinished, and something that it depends on has changed since.
        ModelError: pretrained embeddings that the run reads are missing.
        DataError: the language model cannot be loaded.
    """
    folders = (
        locate_pretrained(job.context.output, job.dataset, model, job.context.seed)
        for model in job.config.pretrained_models
    )
    if any(needs_export(folder / EMBEDDINGS) for folder in folders) and (job.folder / RECORD_FILE).exists():
        return False
    finished = find_finished_run(job.config, split, job.context)
    if finished is None:
        refuse_changed_checkpoint(job.config, split, job.context)
    else:
        print(f"{job.name}: {describe_finished_run(finished)}")
    return True


def check_language_model(check: LanguageModelCheck, config: RunConfig, split: Split) -> None:
    """Refuse a language model that an LLM run cannot use.

    Raises:
        HellmError: the language model cannot be used; the message names the run and says why.
    """
    try:
        check.check(config.model_settings, split.item_text)
    except HellmError as error:
        raise type(error)(f"{config.label} on {split.dataset}: {error}") from error


def run_job(job: RunJob, dataset: Dataset, split: Split, watchers: Sequence[Logger] = ()) -> str | None:
    """Execute a run unless it is finished, then write its exports and the embeddings that other runs read.

    Args:
        job: the run and its exports.
        dataset: dataset of the run.
        split: split of the dataset.
        watchers: loggers that receive each epoch, in addition to the loggers of the settings.

    Returns:
        Description of the error; None if there was no error.

    Raises:
        OutputError: the folder cannot be written.
        SharedRunFailed: the run failed and several processes train it.
    """
    remove_leftovers(job.folder)
    try:
        result = None if job.fresh else find_finished_run(job.config, split, job.context)
    except HellmError as error:
        return str(error)
    if result is not None and job.deferred:
        print(f"{job.name}: {describe_finished_run(result)}")
    if result is None:
        result = execute_run(job.config, dataset, split, job.context, fresh=job.fresh, watchers=watchers)
    if result.status != "success":
        return result.reason
    exports = set(job.exports)
    if job.is_pretrained and needs_export(job.folder / EMBEDDINGS):
        if (job.folder / EMBEDDINGS).exists():
            print(f"{job.name}: its embeddings are of an earlier version and are exported again from the checkpoint")
        exports.add(EMBEDDINGS)
    if exports:
        try:
            export_run(job.config, split, job.context, exports, job.export_k)
        except HellmError as error:
            return f"export: {error}"
    return None


def report_outcome(job: RunJob, problem: str | None) -> bool:
    """Print the error of a job, if there is one. Return whether there was no error."""
    if problem is not None:
        print_error(f"{job.name}: {problem}")
    return problem is None
