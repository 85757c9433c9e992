"""One run that is to be there in the end: locked, compared with what is there, run, exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hellm_recbole.data.atomic import Dataset
from hellm_recbole.data.embeddings import EMBEDDINGS, needs_export
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, ResultError
from hellm_recbole.experiments.export import export_run
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.pretrained import locate_pretrained
from hellm_recbole.experiments.resolve import RunConfig, locate_run
from hellm_recbole.experiments.results import RECORD_FILE, read_result
from hellm_recbole.experiments.run import (
    RunContext,
    describe_kept,
    execute_run,
    find_finished_run,
    refuse_changed_checkpoint,
)
from hellm_recbole.system.console import print_error
from hellm_recbole.system.files import check_removable, sweep_temporaries
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.training.progress import Logger


@dataclass(frozen=True)
class RunJob:
    """One row that is to be there in the end.

    Attributes:
        config: of the row.
        context: where it runs and what its results go to.
        fresh: run it again if it is finished or half-way.
        exports: what else to write of it.
        is_pretrained: another run reads its embeddings.
        dataset: name.
        export_k: entries of an exported test list; None takes the largest cut-off of the run.
        deferred: whether an earlier run in its place can be kept is found out when its turn comes.
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
        """For messages."""
        return f"{self.config.label} on {self.dataset}, seed {self.context.seed}"

    @property
    def folder(self) -> Path:
        """Where its results go to."""
        return locate_run(self.context.output, self.dataset, self.config, self.context.seed)


def announce_removals(folders: Sequence[Path], root: Path) -> None:
    """Say what `--fresh` is about to remove, one line a folder, before anything is removed.

    Args:
        folders: of the runs or searches that start anew.
        root: folder of all results.

    Raises:
        OutputError: one of them does not lie inside `root`.
    """
    there = [folder for folder in folders if folder.is_symlink() or folder.exists()]
    for folder in there:
        check_removable(folder, root)
    for folder in there:
        what = "the link (not what it leads to)" if folder.is_symlink() else "all in"
        print(f"--fresh removes {what} {folder}", flush=True)


class JobLocks:
    """Locks of the runs that this command works on; each is held until its run is over.

    A finished run that is only read is not locked, so that any number of commands may show it.
    """

    def __init__(self) -> None:
        self._locks: dict[Path, FolderLock] = {}

    def acquire(self, jobs: Sequence[RunJob]) -> None:
        """Lock every run that is to be worked on, before anything is run.

        Raises:
            OutputError: another process works on one of them.
        """
        for job in jobs:
            if job.folder not in self._locks and needs_work(job):
                lock = FolderLock(job.folder, job.name)
                lock.acquire()
                self._locks[job.folder] = lock
                if not needs_work(job):  # another process has finished it meanwhile
                    self.release(job)

    def release(self, job: RunJob) -> None:
        """Give back the lock of a run that is over."""
        if (lock := self._locks.pop(job.folder, None)) is not None:
            lock.release()

    def __enter__(self) -> JobLocks:
        return self

    def __exit__(self, *_: object) -> None:
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()


def needs_work(job: RunJob) -> bool:
    """Whether something is to be written into the folder of a run."""
    if job.fresh or job.exports or (job.is_pretrained and needs_export(job.folder / EMBEDDINGS)):
        return True
    try:
        return read_result(job.folder / RECORD_FILE).status != "success"
    except ResultError:
        return True


def check_earlier_run(job: RunJob, split: Split) -> bool:
    """Say that a run is finished and kept, or refuse what cannot be resumed, before anything is run.

    Returns:
        Whether it could be compared; a run that reads embeddings that are yet to be exported is when its turn comes.

    Raises:
        ResultError: a finished run in its place depends on something that has changed since.
        CheckpointError: so does one that was stopped half-way.
    """
    folders = (
        locate_pretrained(job.context.output, job.dataset, model, job.context.seed)
        for model in job.config.pretrained_models
    )
    if any(needs_export(folder / EMBEDDINGS) for folder in folders) and (job.folder / RECORD_FILE).exists():
        return False
    record = find_finished_run(job.config, split, job.context)
    if record is None:
        refuse_changed_checkpoint(job.config, split, job.context)
    else:
        print(f"{job.name}: {describe_kept(record)}")
    return True


def check_language_model(check: LanguageModelCheck, config: RunConfig, split: Split) -> None:
    """Refuse a language model that an LLM row cannot use.

    Raises:
        HellmError: it names the row and says what is wrong.
    """
    try:
        check.check(config.model_settings, split.item_text)
    except HellmError as error:
        raise type(error)(f"{config.label} on {split.dataset}: {error}") from error


def run_job(job: RunJob, dataset: Dataset, split: Split, watchers: Sequence[Logger] = ()) -> str | None:
    """Run a row unless it is finished, and export what is asked for or what another row reads.

    Returns:
        What went wrong, None if nothing did.

    Raises:
        OutputError: the folder cannot be written.
    """
    sweep_temporaries(job.folder)
    try:
        record = None if job.fresh else find_finished_run(job.config, split, job.context)
    except HellmError as error:
        return str(error)
    if record is not None and job.deferred:
        print(f"{job.name}: {describe_kept(record)}")
    if record is None:
        record = execute_run(job.config, dataset, split, job.context, fresh=job.fresh, watchers=watchers)
    if record.status != "success":
        return record.reason
    exports = set(job.exports)
    if job.is_pretrained and needs_export(job.folder / EMBEDDINGS):
        if (job.folder / EMBEDDINGS).exists():
            print(f"{job.name}: embeddings of an earlier version, exported again from the checkpoint")
        exports.add(EMBEDDINGS)
    if exports:
        try:
            export_run(job.config, split, job.context, exports, job.export_k)
        except HellmError as error:
            return f"export: {error}"
    return None


def report_outcome(job: RunJob, problem: str | None) -> bool:
    """Print what went wrong with a row; whether all went well."""
    if problem is not None:
        print_error(f"{job.name}: {problem}")
    return problem is None
