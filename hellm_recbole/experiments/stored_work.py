"""The runs of a command that keeps its data and results in a storage (`--storage`): what it does before and after them.

At the end the command has the same files in its own folder of results as without a storage.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path

from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.replacement import is_prepared
from hellm_recbole.data.split import Split
from hellm_recbole.data.stored_data import fetch_dataset, fetch_only_version, store_dataset
from hellm_recbole.experiments.external_embeddings import ExternalEmbeddings, SplitWithEmbeddings
from hellm_recbole.experiments.jobs import RunJob, needs_work
from hellm_recbole.experiments.pretrained import locate_pretrained
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.experiments.stored_runs import StoredRun
from hellm_recbole.plugins.splits import split_as_named
from hellm_recbole.system.files import remove_folder
from hellm_recbole.system.leases import Leases
from hellm_recbole.system.storage import Storage, StorageError, open_storage

Data = tuple[Dataset, Split]


@dataclass(frozen=True)
class DataReference:
    """A prepared dataset in a storage, and how it is split.

    Attributes:
        name: name of the dataset.
        digest: digest of its manifest.
        split: value of `--split`.
        split_sha256: SHA-256 of the split.
        embeddings: pretrained model -> embeddings that come from a file of the command.
        command: name that this command alone has, for its folder in the cache of a worker.
    """

    name: str
    digest: str
    split: str | None
    split_sha256: str
    embeddings: Mapping[str, ExternalEmbeddings]
    command: str


class StoredWork:
    """The storage of a command, and the leases of its runs until the block ends. Without a URI it does nothing.

    Args:
        uri: value of `--storage`; None if there is no storage.
        split: value of `--split`.
    """

    def __init__(self, uri: str | None, split: str | None = None) -> None:
        self._uri, self._split = uri, split
        self._stack = ExitStack()
        self._command = secrets.token_hex(8)
        self._storage: Storage | None = None
        self._leases: Leases | None = None

    def __enter__(self) -> StoredWork:
        if self._uri is not None:
            self._storage = open_storage(self._uri)
            self._leases = self._stack.enter_context(Leases(self._storage))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def is_used(self) -> bool:
        """Whether the command has a storage."""
        return self._storage is not None

    def fetch_data(self, names: Iterable[str], root: Path) -> None:
        """Fetch the datasets that are not prepared on this machine, if the storage has them.

        Args:
            names: names of datasets.
            root: folder of the prepared datasets.

        Raises:
            StorageError: it has several versions of a dataset, or cannot be read.
        """
        for name in names if self._storage is not None else ():
            assert self._storage is not None
            if not is_prepared(root / name) and fetch_only_version(self._storage, name, root / name):
                print(f"{name}: fetched from {self._uri}")

    def take(self, jobs: Sequence[RunJob]) -> list[RunJob]:
        """Take the leases of all runs that have something left to do, and fetch what the storage has already.

        A run of which this machine has the later state is handed to the storage.

        Args:
            jobs: jobs of the command, whose folders it has locked.

        Returns:
            The jobs; those that are to be handed back know the storage.

        Raises:
            StorageError: another command works on one of these runs, or the storage cannot be used.
        """
        if self._storage is None or self._leases is None:
            return list(jobs)
        taken = []
        for job in jobs:
            run = StoredRun(self._storage, job.folder)
            if job.fresh or needs_work(job) or run.is_behind():
                self._leases.acquire(run.path, job.name)
                if not job.fresh and run.pull():
                    run.push()
                if needs_work(job):
                    job = replace(job, storage=self._uri)
                else:
                    self._leases.release(run.path)
            taken.append(job)
        return taken

    def begin(self, jobs: Sequence[RunJob], data: Mapping[str, Data]) -> list[RunJob]:
        """Put the data of the runs into the storage, and remove what `--fresh` removes there and here.

        Args:
            jobs: jobs of the command.
            data: dataset name -> dataset and its split.

        Returns:
            The jobs. None of them is `fresh`, so that a run whose worker dies is resumed.

        Raises:
            StorageError: the storage cannot be used.
        """
        if self._storage is None:
            return list(jobs)
        for name in {job.dataset for job in jobs if job.storage is not None}:
            store_dataset(self._storage, _find_folder(data[name][0]))
        for job in jobs:
            if job.fresh:
                StoredRun(self._storage, job.folder).stored.remove()
                remove_folder(job.folder, job.context.output)
        return [replace(job, fresh=False) for job in jobs]

    def refer_to(self, data: Data) -> DataReference:
        """Return what a worker needs to fetch a dataset.

        Args:
            data: dataset and split, which `begin` has put into the storage.

        Raises:
            StorageError: the storage cannot be used.
        """
        assert self._storage is not None
        dataset, split = data
        return DataReference(
            name=dataset.name,
            digest=store_dataset(self._storage, _find_folder(dataset)),
            split=self._split,
            split_sha256=split.sha256,
            embeddings=split.embeddings if isinstance(split, SplitWithEmbeddings) else {},
            command=self._command,
        )

    def collect(self, job: RunJob) -> str | None:
        """Fetch a run that a worker has handed back. Return the description of the error, or None."""
        assert self._storage is not None
        try:
            StoredRun(self._storage, job.folder).pull(always=True)
        except StorageError as error:
            return f"its results could not be fetched, and the same command fetches them: {error}"
        return None

    def push(self, job: RunJob) -> None:
        """Hand a run back whose worker could not.

        Raises:
            StorageError: the storage cannot be used.
        """
        assert self._storage is not None
        run = StoredRun(self._storage, job.folder)
        run.stored.claim()
        run.push()


def load_referred(storage: Storage, reference: DataReference, root: Path) -> Data:
    """Load a dataset and its split in a worker, after fetching it into the cache of its machine.

    Args:
        storage: the storage.
        reference: which dataset, and how it is split.
        root: folder of the datasets in the cache.

    Raises:
        StorageError: the storage does not have the dataset, or this machine splits it in another way.
        DataError: the dataset is damaged.
    """
    folder = fetch_dataset(storage, reference.name, reference.digest, root)
    dataset, split = split_as_named(load_dataset(folder, modalities=None), reference.split, folder)
    if split.sha256 != reference.split_sha256:
        raise StorageError(
            f"{reference.name} is split in another way here than where the command was started; install the same "
            "version of hellm-recbole, and of the package with the split, on all machines"
        )
    if reference.embeddings:
        known = {field.name: getattr(split, field.name) for field in fields(Split)}
        split = SplitWithEmbeddings(**known, embeddings=reference.embeddings)
    return dataset, split


def list_read_folders(job: RunJob) -> list[Path]:
    """List the folders of all runs that a job reads: pretrained models, runs that it combines, and what these read."""
    folders = list(job.pretrained_folders)
    rows: list[RunConfig] = list(job.config.combined_runs)
    while rows:
        row = rows.pop()
        folders.append(job.context.locate_run(row, job.dataset))
        rows += row.combined_runs
        folders += [
            locate_pretrained(job.context.output, job.dataset, model, job.context.seed)
            for model in row.pretrained_models
            if model not in job.external
        ]
    return list(dict.fromkeys(folders))


def _find_folder(dataset: Dataset) -> Path:
    """Return the folder of a prepared dataset."""
    assert dataset.cache is not None  # only datasets in memory have none, and commands load theirs from folders
    return dataset.cache.parent
