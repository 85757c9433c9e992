"""Locks, so that only one process at a time works in the folder of a run, a search or a dataset.

A lock is a file `.NAME.lock` next to the folder. The kernel locks it for this process (`flock`; on Windows, one byte of
it with `msvcrt.locking`), and unlocks it when the process ends in any way. So there are no stale locks, and the content
of the file does not matter. On NFS, Linux asks the server, so the lock also excludes processes on other machines,
except if the share is mounted with `local_lock` or `nolock`.

The package filelock is not used: it empties the file when it tries to take the lock, and the file names the holder.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import platform
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType, TracebackType

from hellm_recbole.errors import OutputError
from hellm_recbole.system.disk import explain_write_error
from hellm_recbole.system.files import ensure_folder

_TRIES = 5  # attempts to read the holder of a lock, which may be writing its name just now
_PAUSE_S = 0.05
_LOCKED_BYTE = 1 << 30  # on Windows: far behind the content, which other processes must be able to read


class _LockHeld(OutputError):
    """Another process holds the lock."""


class FolderLock:
    """Lock that keeps other processes out of a folder, from `acquire` to `release` or during a `with` block.

    The process that takes the lock also takes it for its Ray workers and for the other processes of a distributed run;
    they take no lock of their own.

    Args:
        folder: folder to work in, or file to write; it need not exist.
        what: name of the work, for messages.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self._path = get_lock_path(folder)
        self._what = what
        self._file: int | None = None

    def acquire(self, wait_s: float = 0.0) -> None:
        """Take the lock.

        Args:
            wait_s: longest time to wait for the process that holds it, in seconds.

        Raises:
            OutputError: another process holds the lock, or the lock file cannot be created.
        """
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return self._take()
            except _LockHeld:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE_S)

    def _take(self) -> None:
        """Take the lock; do not wait for it.

        Raises:
            _LockHeld: another process holds the lock.
            OutputError: the lock file cannot be created.
        """
        ensure_folder(self._path.parent)
        while self._file is None:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            except OSError as error:
                reason = explain_write_error(error, self._path, "choose another --output")
                raise OutputError(f"cannot write {self._path}: {reason}") from error
            try:
                _lock(file)
            except BlockingIOError as error:
                os.close(file)
                raise _LockHeld(
                    f"{self._what} is in use by {_describe_holder(self._path)}; wait until it ends, or stop it"
                ) from error
            except OSError as error:
                os.close(file)
                _warn_unsupported(str(self._path.parent), error.strerror or str(error))
                return
            if _is_same_file(file, self._path):  # not a file that its holder has just removed
                self._file = file
            else:
                os.close(file)
        holder = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S %Z")}
        with suppress(OSError):  # if the disk is full, the file is empty, but the lock is still held
            os.ftruncate(self._file, 0)
            os.write(self._file, json.dumps(holder).encode())

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
        if self._file is not None:
            if _is_same_file(self._file, self._path):
                with suppress(PermissionError):  # Windows does not remove an open file; an unlocked one does no harm
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


def _lock(file: int) -> None:
    """Lock an open file for this process, without waiting.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the system or the file system has no locks.
    """
    if (fcntl := _find_module("fcntl")) is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    if (msvcrt := _find_module("msvcrt")) is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EDEADLK, errno.EAGAIN):
            raise BlockingIOError(error.errno, error.strerror) from error
        raise
    finally:
        os.lseek(file, 0, os.SEEK_SET)


def _find_module(name: str) -> ModuleType | None:
    """Import a module of the standard library; None if this system does not have it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def get_lock_path(folder: Path) -> Path:
    """Return the path of the lock file of a folder; the file of a killed process is not removed."""
    return folder.parent / f".{folder.name}.lock"


def _is_same_file(file: int, path: Path) -> bool:
    """Return whether an open file is still the file at this path."""
    try:
        on_disk = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(file)
    return (opened.st_dev, opened.st_ino) == (on_disk.st_dev, on_disk.st_ino)


def _describe_holder(path: Path) -> str:
    """Describe the process that holds a lock: its id, machine and start time."""
    for _ in range(_TRIES):
        try:
            holder = json.loads(path.read_text(encoding="utf-8"))
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(_PAUSE_S)
    return "another process"


@cache
def _warn_unsupported(folder: str, reason: str) -> None:
    """Warn, once for each folder, that the file system does not support locks."""
    print(
        f"warning: the file system of {folder} has no locks ({reason}); do not give two commands the same runs at once",
        file=sys.stderr,
    )
