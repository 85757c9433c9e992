"""A folder in a storage: files under their SHA-256, and a manifest that is written last.

A reader sees the folder as it was when its manifest was written, or no folder. Files that the next manifest does not
name are removed after it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hellm_recbole.system.files import (
    check_seal,
    create_scratch_folder,
    ensure_folder,
    replace_folder,
    seal,
    sha256_file,
)
from hellm_recbole.system.storage import Storage, StorageError

SCHEMA = 1
_MANIFEST, _OBJECTS, _WRITER = "manifest.json", "objects", "writer"
_TRIES = 5  # number of times that a folder is read which another process replaces meanwhile


@dataclass(frozen=True)
class StoredManifest:
    """Content of a stored folder.

    Attributes:
        files: path of a file in the folder, with `/` -> SHA-256.
        state: what the writer said about the folder.
    """

    files: Mapping[str, str]
    state: Mapping[str, Any]


class StoredFolder:
    """A folder in a storage.

    Args:
        storage: the storage.
        path: path of the folder in it.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage, self.path = storage, path
        self._token: bytes | None = None
        self._digests: dict[tuple[int, int, int], str] = {}  # inode, time and size of a local file -> SHA-256

    def claim(self) -> None:
        """Become the only process that may push from now on: a worker that was given up may still be running."""
        token = secrets.token_hex(8).encode()
        self._storage.write(f"{self.path}/{_WRITER}", token)
        self._token = token

    def read_manifest(self) -> StoredManifest | None:
        """Read the manifest; None if there is no such folder.

        Raises:
            StorageError: it cannot be read, or is damaged.
        """
        content = self._storage.read(f"{self.path}/{_MANIFEST}")
        if content is None:
            return None
        try:
            found = check_seal(json.loads(content))
            if found["schema"] != SCHEMA:
                raise ValueError(f"schema {found['schema']!r}")
            return StoredManifest(dict(found["files"]), dict(found["state"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._make_damage(_MANIFEST, str(error)) from error

    def push(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Copy a local folder to the storage, without hidden files. Files that are there already are not copied again.

        Args:
            folder: the local folder; nobody changes it meanwhile.
            state: what to say about it.

        Raises:
            StorageError: it cannot be written, or another process has claimed the folder.
        """
        before = self.read_manifest()
        files = {name: self._digest(folder / name) for name in list_visible_files(folder)}
        if before is not None and before.files == files and before.state == dict(state):
            return
        known = set() if before is None else set(before.files.values())
        for name, digest in files.items():
            if digest not in known:
                self._storage.upload(folder / name, f"{self.path}/{_OBJECTS}/{digest}")
                known.add(digest)
        self._refuse_other_writer()
        content = seal({"schema": SCHEMA, "files": files, "state": dict(state)})
        self._storage.write(f"{self.path}/{_MANIFEST}", json.dumps(content, indent=1).encode())
        for unnamed in self._storage.list_files(f"{self.path}/{_OBJECTS}").keys() - files.values():
            self._storage.remove(f"{self.path}/{_OBJECTS}/{unnamed}")

    def pull(self, folder: Path) -> StoredManifest | None:
        """Make a local folder equal to the stored one; it is replaced at once.

        Returns:
            The manifest; None if there is no stored folder, and then the local one stays as it is.

        Raises:
            StorageError: a file cannot be read, or is not what was written.
            OutputError: the local folder cannot be written.
        """
        manifest = self.read_manifest()
        for attempt in range(_TRIES):
            if manifest is None:
                return None
            try:
                self._pull(folder, manifest)
                return manifest
            except StorageError:
                latest = self.read_manifest()
                if latest == manifest or attempt == _TRIES - 1:
                    raise
                manifest = latest
        return manifest

    def remove(self) -> None:
        """Remove the folder from the storage, its manifest first.

        Raises:
            StorageError: it cannot be removed.
        """
        self._storage.remove(f"{self.path}/{_MANIFEST}")
        for name in self._storage.list_files(f"{self.path}/{_OBJECTS}"):
            self._storage.remove(f"{self.path}/{_OBJECTS}/{name}")

    def _pull(self, folder: Path, manifest: StoredManifest) -> None:
        """Copy all files of a manifest to a new folder, and give it the name of the local one."""
        ensure_folder(folder.parent)
        with create_scratch_folder(folder.parent, folder.name) as scratch:
            for name, digest in manifest.files.items():
                target, present = scratch / name, folder / name
                if not target.resolve().is_relative_to(scratch.resolve()):
                    raise self._make_damage(_MANIFEST, f"it names {name!r}")
                target.parent.mkdir(parents=True, exist_ok=True)
                if present.is_file() and self._digest(present) == digest:
                    link_or_copy(present, target)
                    continue
                self._storage.download(f"{self.path}/{_OBJECTS}/{digest}", target)
                if sha256_file(target) != digest:
                    raise self._make_damage(name, "its SHA-256 is not that of what was written")
            replace_folder(scratch, folder)

    def _digest(self, path: Path) -> str:
        """Return the SHA-256 of a local file; it is computed again only if the file has been replaced."""
        status = path.stat()
        key = status.st_ino, status.st_mtime_ns, status.st_size
        if key not in self._digests:
            self._digests[key] = sha256_file(path)
        return self._digests[key]

    def _refuse_other_writer(self) -> None:
        """Refuse to replace what another process is responsible for now.

        Raises:
            StorageError: another process has claimed the folder.
        """
        if self._token is not None and self._storage.read(f"{self.path}/{_WRITER}") != self._token:
            raise StorageError(
                f"{self._storage.uri}: {self.path} belongs to another process now, which resumed the run while this "
                "one did not answer; this one hands nothing back"
            )

    def _make_damage(self, name: str, reason: str) -> StorageError:
        return StorageError(
            f"{self._storage.uri}: {self.path}/{name} is damaged ({reason}); remove {self.path} from the storage, and "
            "give the same command again"
        )


def list_visible_files(folder: Path) -> list[str]:
    """List the files of a folder and its subfolders, as paths with `/`, sorted. Hidden ones are left out."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
