"""Locks: one process at a time works in the folder of a run, of a search or of a dataset.

A lock is a file beside the folder, `.NAME.lock`, that the kernel locks for this process (`flock`) and frees when the
process ends, however it ends; so there are no stale locks, whatever the file says. On NFS, Linux asks the server, and
processes on other machines are kept out, too, unless the share is mounted with `local_lock` or `nolock`.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType

from hellm_recbole.errors import OutputError
from hellm_recbole.system.disk import explain
from hellm_recbole.system.files import ensure_folder

_TRIES = 5  # to read who holds a lock, for it may be writing this
_PAUSE_S = 0.05


class FolderLock:
    """Keeps other processes out of a folder from `acquire` to `release`, or for the length of a `with` block.

    A lock belongs to the process that takes it: its Ray workers and the other processes of a distributed run take none.

    Args:
        folder: folder to work in; it need not exist.
        what: name of what is made there, for messages.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self._path = lock_path(folder)
        self._what = what
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            OutputError: another process holds it, or the file cannot be made.
        """
        ensure_folder(self._path.parent)
        while self._file is None:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                reason = explain(error, self._path, "choose another --output")
                raise OutputError(f"cannot write {self._path}: {reason}") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(file)
                raise OutputError(
                    f"{self._what} is in use by {_describe_holder(self._path)}; wait until it ends, or stop it"
                ) from error
            except OSError as error:
                os.close(file)
                _warn_unsupported(str(self._path.parent), error.strerror or str(error))
                return
            if _is_same_file(file, self._path):  # and not one that its holder has just removed
                self._file = file
            else:
                os.close(file)
        holder = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S %Z")}
        with suppress(OSError):  # the disk may be full, and the lock holds without its text
            os.ftruncate(self._file, 0)
            os.write(self._file, json.dumps(holder).encode())

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._file is not None:
            if _is_same_file(self._file, self._path):
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_path(folder: Path) -> Path:
    """The file that is locked for a folder; a process that was killed leaves it behind."""
    return folder.parent / f".{folder.name}.lock"


def _is_same_file(file: int, path: Path) -> bool:
    """Whether an open file is the one that has this path now."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(file)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _describe_holder(path: Path) -> str:
    """Process, machine and time of who holds a lock."""
    for _ in range(_TRIES):
        try:
            holder = json.loads(path.read_text(encoding="utf-8"))
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(_PAUSE_S)
    return "another process"


@cache
def _warn_unsupported(folder: str, reason: str) -> None:
    """Say once that a file system has no locks."""
    print(
        f"warning: the file system of {folder} has no locks ({reason}); do not give two commands the same runs at once",
        file=sys.stderr,
    )
