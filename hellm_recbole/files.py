"""Writing files so that a reader never sees half of one, and hashing them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hellm_recbole.errors import OutputError


def ensure_folder(folder: Path, option: str = "--output") -> Path:
    """Make a folder and its parents.

    Args:
        folder: to make.
        option: of the command line that names it, for messages.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make folder {folder}: {error.strerror}; choose another one with {option}") from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"folder {folder} is read-only; choose another one with {option}")
    return folder


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well it becomes `path`, else it is removed.

    The temporary name ends like the final one, so that writers that look at the ending keep working.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_folder(parent: Path, name: str, option: str = "--output") -> Iterator[Path]:
    """Yield an empty folder `.NAME.tmp-PID` in `parent`, to be renamed when it is whole; what is left of it is removed.

    Args:
        parent: where the finished folder or files shall stand.
        name: of what is written, for messages too.
        option: of the command line that names `parent`.

    Raises:
        OutputError: something in it cannot be written, or the disk is full.
    """
    folder = parent / f".{name}.tmp-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that is no more
    ensure_folder(folder, option)
    try:
        yield folder
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {parent / name}: {reason}; make room, or choose another {option}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed writer left behind in `folder`."""
    for pattern in (".*.tmp.*", ".tmp??????"):  # ours, and safetensors' own while it writes
        for leftover in folder.glob(pattern):
            leftover.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
