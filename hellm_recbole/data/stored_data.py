"""Prepared datasets in a storage, each under the digest of its manifest, so that machines get what they need."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.data.manifest import MANIFEST, find_changed_files, read_manifest
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import sha256_file
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.system.storage import Storage, StorageError
from hellm_recbole.system.stored_folder import StoredFolder

FOLDER = "data"  # folder of the prepared datasets in a storage
_WAIT_S = 3600.0  # how long another process of this machine may take to fetch the same dataset


def store_dataset(storage: Storage, folder: Path) -> str:
    """Put a prepared dataset into a storage, unless it is there. Return the digest of its manifest.

    Raises:
        DataError: a file has changed since it was prepared.
        StorageError: it cannot be written.
    """
    digest = sha256_file(folder / MANIFEST)
    stored = _locate(storage, folder.name, digest)
    if stored.read_manifest() is None:
        if changed := find_changed_files(folder, read_manifest(folder)):
            raise DataError(
                f"{folder / changed[0]} has changed since it was prepared, so it is not put into {storage.uri}; "
                "prepare the dataset again with --fresh"
            )
        stored.push(folder, {})
    return digest


def fetch_dataset(storage: Storage, name: str, digest: str, root: Path) -> Path:
    """Fetch a prepared dataset into a folder of this machine, unless it is there.

    Args:
        storage: the storage.
        name: name of the dataset.
        digest: digest of its manifest.
        root: local folder; the dataset gets the folder `<digest>/<name>` in it.

    Returns:
        Folder of the dataset.

    Raises:
        StorageError: the storage does not have it, or it is damaged.
        OutputError: the folder cannot be written.
    """
    folder = root / digest[:32] / name
    lock = FolderLock(folder, f"dataset {name}")
    lock.acquire(_WAIT_S)
    try:
        if not (folder / MANIFEST).is_file() or find_changed_files(folder, read_manifest(folder)):
            _fetch(storage, name, digest, folder)
    finally:
        lock.release()
    return folder


def fetch_only_version(storage: Storage, name: str, folder: Path) -> bool:
    """Fetch a dataset that is not prepared on this machine, if the storage has it in one version.

    Args:
        storage: the storage.
        name: name of the dataset.
        folder: its folder on this machine.

    Returns:
        Whether it was fetched; the storage may not have it.

    Raises:
        StorageError: the storage has several versions of it, or it is damaged.
        OutputError: the folder cannot be written.
    """
    versions = [
        digest
        for digest in storage.list_folders(f"{FOLDER}/{name}")
        if _locate(storage, name, digest).read_manifest() is not None
    ]
    if not versions:
        return False
    if len(versions) > 1:
        raise StorageError(
            f"{storage.uri} has {len(versions)} versions of the dataset {name}; prepare it on this machine, or remove "
            f"all but one of the folders in {FOLDER}/{name} from the storage"
        )
    with FolderLock(folder, f"dataset {name}"):
        _fetch(storage, name, versions[0], folder)
    return True


def _locate(storage: Storage, name: str, digest: str) -> StoredFolder:
    return StoredFolder(storage, f"{FOLDER}/{name}/{digest}")


def _fetch(storage: Storage, name: str, digest: str, folder: Path) -> None:
    """Fetch a version of a dataset.

    Raises:
        StorageError: the storage does not have it, or it is damaged.
    """
    found = _locate(storage, name, digest).pull(folder)
    if found is None or found.files.get(MANIFEST) != digest:
        raise StorageError(
            f"{storage.uri} has no dataset {name} with the digest {digest[:8]}; give the command again, which puts "
            "it there"
        )
