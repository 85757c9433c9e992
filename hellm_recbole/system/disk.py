"""Messages about full disks: the device, the bytes needed and the bytes free."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

import psutil

from hellm_recbole.errors import OutputError

MAKE_ROOM = "free some space there or choose another folder, and give the same command again"
_FULL = ("No space left on device", "os error 28")  # Rust and C++ libraries give this text but no errno
_QUOTA = ("Disk quota exceeded", "os error 122")
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # NumPy's message; it has no errno
_MB = 1_000_000


def is_full(error: BaseException) -> bool:
    """Return whether an error says that a disk is full or a disk quota is used up.

    >>> is_full(OSError(28, "No space left on device")), is_full(OSError("4096 requested and 12 written"))
    (True, True)
    >>> is_full(OSError(2, "No such file or directory"))
    False
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    return any(phrase in text for phrase in (*_FULL, *_QUOTA)) or (
        isinstance(error, OSError) and error.errno is None and _SHORT_WRITE.search(text) is not None
    )


def describe_full(error: BaseException, path: Path | None, n_bytes: int | None = None, *, at_least: int = 0) -> str:
    """Describe a full disk: the device, the bytes needed, the bytes free, and what to do.

    Args:
        error: error for which `is_full` is true.
        path: path that was written, or a folder above it; None if unknown.
        n_bytes: size of everything that is to be written; None if unknown.
        at_least: bytes that were written before the disk was full; used if `n_bytes` is unknown.

    Returns:
        The second half of a sentence, without a capital letter and a full stop.
    """
    quota = getattr(error, "errno", None) == errno.EDQUOT or any(phrase in str(error) for phrase in _QUOTA)
    device = "the device" if path is None else name_device(path)
    parts = [f"disk quota used up on {device}" if quota else f"no space left on {device}"]
    if n_bytes:
        parts.append(f"{format_megabytes(n_bytes)} needed")
    elif at_least:
        parts.append(f"more than {format_megabytes(at_least)} needed")
    if path is not None and (free := _describe_free_space(path)):
        parts.append(free)
    return f"{', '.join(parts)}; {MAKE_ROOM}"


def explain_write_error(error: BaseException, path: Path, advice: str = "") -> str:
    """Explain why a file or folder could not be written, and what to do.

    Args:
        error: an `OSError`, or the exception of a library for one.
        path: path that was written.
        advice: what to do if the disk is not full.
    """
    if is_full(error):
        return describe_full(error, path)
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{reason}; {advice}" if advice else reason


def format_megabytes(n_bytes: int) -> str:
    """Format a size in megabytes for a message, rounded up.

    >>> format_megabytes(1), format_megabytes(1_250_000), format_megabytes(14_000_000_000)
    ('0.1 MB', '1.3 MB', '14,000.0 MB')
    """
    return f"{-(-n_bytes * 10 // _MB) / 10:,.1f} MB"


def name_device(path: Path) -> str:
    """Return the device of a path and where it is mounted; the path itself need not exist."""
    mount = _find_existing_parent(path)
    while not os.path.ismount(mount) and mount != mount.parent:
        mount = mount.parent
    with suppress(OSError, RuntimeError):
        devices = [
            partition.device for partition in psutil.disk_partitions(all=True) if partition.mountpoint == str(mount)
        ]
        if devices and devices[-1] not in ("", "none"):  # the device mounted last hides earlier ones
            return f"{devices[-1]} (mounted at {mount})"
    return f"the device mounted at {mount}"


def _find_existing_parent(path: Path) -> Path:
    """Return the path with symbolic links resolved, or the nearest folder above it that exists."""
    existing = Path(os.path.realpath(path))
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    return existing


def _describe_free_space(path: Path) -> str:
    """Describe the free space for a path; "" if the system does not report it."""
    existing = _find_existing_parent(path)
    try:
        if hasattr(os, "statvfs"):  # not on Windows
            status = os.statvfs(existing)
            if status.f_files and not status.f_favail:
                return "no more files can be created there"
        return f"{psutil.disk_usage(str(existing)).free / _MB:,.1f} MB free"
    except OSError:
        return ""


def measure_size(folder: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder; 0 if the path does not exist."""
    paths = folder.rglob("*") if folder.is_dir() else [folder]
    total = 0
    for path in paths:
        with suppress(OSError):
            if path.is_file():
                total += path.stat().st_size
    return total


def refuse_too_small_disk(path: Path, n_bytes: int, what: str) -> None:
    """Refuse to begin something that does not fit on its disk.

    Args:
        path: folder that will be written to; it need not exist.
        n_bytes: size of what will be written.
        what: name of it, for the message.

    Raises:
        OutputError: the disk has less free space.
    """
    free = psutil.disk_usage(str(_find_existing_parent(path))).free
    if n_bytes > free:
        raise OutputError(
            f"{what} need {format_megabytes(n_bytes)}, but {name_device(path)} has {format_megabytes(free)} free; "
            f"{MAKE_ROOM}"
        )
