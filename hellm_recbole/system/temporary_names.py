"""Names of temporary files and folders; they say which process of which machine writes them."""

from __future__ import annotations

import hashlib
import os
import platform
import re

import psutil

_TEMPORARY = (  # names of temporary files and of temporary folders; names of earlier versions have no host
    re.compile(r"\.(?P<pid>\d{1,9})(?:-(?P<host>[0-9a-f]{8}))?\.tmp\.(?P<name>.+)(?P<old>)"),
    re.compile(r"\.(?P<name>.+)\.tmp-(?P<pid>\d{1,9})(?:-(?P<host>[0-9a-f]{8}))?(?P<old>\.old)?"),
)


def match_leftover(name: str) -> re.Match[str] | None:
    """Match the name of a temporary file or folder whose process on this machine no longer writes it.

    Returns:
        Match with the groups `name`, of the final file, and `old`, which is set for a folder that was being replaced;
        None for all other names.
    """
    match = next((found for pattern in _TEMPORARY if (found := pattern.fullmatch(name))), None)
    return match if match is not None and _has_ended(int(match["pid"]), match["host"]) else None


def _has_ended(pid: int, host: str | None) -> bool:
    """Return whether the process that created a temporary file no longer writes it.

    True if the process has ended. Also true for this process, which writes nothing while it removes temporary files.
    """
    if host not in (None, hash_host()):
        return False
    if pid == os.getpid():
        return True
    return not psutil.pid_exists(pid)  # on Windows, `os.kill(pid, 0)` would interrupt the process


def hash_host() -> str:
    """Return eight hexadecimal digits that identify this machine."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def name_owner() -> str:
    """Return the name of this process in temporary file names; machines may share a folder, so it has the host."""
    return f"{os.getpid()}-{hash_host()}"
