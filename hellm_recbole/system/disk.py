"""Full disks: which device it is, how much is needed and how much is left, in words."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

import psutil

MAKE_ROOM = "free some space there or choose another folder, and give the same command again"
_FULL = ("No space left on device", "os error 28")  # libraries in Rust and C++ have the words alone
_QUOTA = ("Disk quota exceeded", "os error 122")
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # NumPy's, without any number of the system
_MB = 1_000_000


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full, or a quota used up.

    >>> is_full(OSError(28, "No space left on device")), is_full(OSError("4096 requested and 12 written"))
    (True, True)
    >>> is_full(OSError(2, "No such file or directory"))
    False
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    return any(words in text for words in (*_FULL, *_QUOTA)) or (
        isinstance(error, OSError) and error.errno is None and _SHORT_WRITE.search(text) is not None
    )


def describe_full(error: BaseException, path: Path | None, n_bytes: int | None = None, *, at_least: int = 0) -> str:
    """The fault of a full disk as half a sentence: the device, what is needed, what is free, and what to do.

    Args:
        error: of which `is_full` holds.
        path: that was written, or a folder that holds it; None where it is not known.
        n_bytes: of all that is to be written; None where that is not known.
        at_least: bytes that were written before the disk was full, said where `n_bytes` is not known.
    """
    quota = getattr(error, "errno", None) == errno.EDQUOT or any(words in str(error) for words in _QUOTA)
    device = "the device" if path is None else name_device(path)
    said = [f"disk quota used up on {device}" if quota else f"no space left on {device}"]
    if n_bytes:
        said.append(f"{format_megabytes(n_bytes)} needed")
    elif at_least:
        said.append(f"more than {format_megabytes(at_least)} needed")
    if path is not None and (room := _describe_room(path)):
        said.append(room)
    return f"{', '.join(said)}; {MAKE_ROOM}"


def explain(error: BaseException, path: Path, advice: str = "") -> str:
    """What the system says of a file or folder that it cannot write, with what to do.

    Args:
        error: an `OSError`, or what a library made of one.
        path: that was written.
        advice: what to do where the disk is not full.
    """
    if is_full(error):
        return describe_full(error, path)
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{reason}; {advice}" if advice else reason


def format_megabytes(n_bytes: int) -> str:
    """A size for a message, rounded up.

    >>> format_megabytes(1), megabytes(1_250_000), megabytes(14_000_000_000)
    ('0.1 MB', '1.3 MB', '14,000.0 MB')
    """
    return f"{-(-n_bytes * 10 // _MB) / 10:,.1f} MB"


def name_device(path: Path) -> str:
    """The device that holds a file or folder, and where it is mounted; the file itself need not exist."""
    place = _existing(path)
    while not os.path.ismount(place) and place != place.parent:
        place = place.parent
    with suppress(OSError, RuntimeError):
        devices = [part.device for part in psutil.disk_partitions(all=True) if part.mountpoint == str(place)]
        if devices and devices[-1] not in ("", "none"):  # the last one mounted there hides the others
            return f"{devices[-1]} (mounted at {place})"
    return f"the device mounted at {place}"


def _existing(path: Path) -> Path:
    """The path with symbolic links followed, or the nearest folder above it that is there."""
    place = Path(os.path.realpath(path))
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _describe_room(path: Path) -> str:
    """What is free where a file was to be written; "" where the system does not say."""
    try:
        found = os.statvfs(_existing(path))
    except OSError:
        return ""
    if found.f_files and not found.f_favail:
        return "no further file fits there"
    return f"{found.f_bavail * found.f_frsize / _MB:,.1f} MB free"


def measure_size(folder: Path) -> int:
    """Bytes of all files in a folder, or of one file; 0 where there is nothing."""
    paths = folder.rglob("*") if folder.is_dir() else [folder]
    total = 0
    for path in paths:
        with suppress(OSError):
            if path.is_file():
                total += path.stat().st_size
    return total
