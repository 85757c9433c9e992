"""End a local Ray cluster when the command that started it ends, also if that command is killed by SIGKILL.

The command starts this file as a script: `python -P watchdog.py TOKEN`. All processes of the Ray cluster inherit an
environment variable with the token, so they are not confused with processes of other clusters. The script imports
nothing from this package, so that it starts fast and stays small.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable
from typing import IO

import psutil

VARIABLE = "HELLM_RAY_OWNER"
GRACE_S = 2.0  # time for processes that end by themselves, as most do after `ray.shutdown`
TERM_S = 4.0  # time between SIGTERM and SIGKILL
GIVE_UP_S = 30.0
_POLL_S = 0.2
REMEMBER_EVERY_S = 2.0


def find_processes(token: str) -> list[psutil.Process]:
    """Return processes with the token in their environment, and their descendants, without this process."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(VARIABLE) == token:
                found |= {member.pid: member for member in (process, *process.children(recursive=True))}
    found.pop(psutil.Process().pid, None)
    return [process for process in found.values() if _is_running(process)]


def end_processes(token: str, known: Iterable[psutil.Process] = ()) -> None:
    """Wait a short time for the processes of a token to end, then terminate them.

    Ray's agents overwrite their environment, so they do not have the token. They are found as children of a process
    that has it, but only while that process lives. Therefore the caller collects them early and passes them as `known`.

    Args:
        token: token of the command that has ended.
        known: processes of this token that were found earlier.
    """
    start = time.monotonic()
    processes, terminated = set(known), set()
    while (waited := time.monotonic() - start) < GIVE_UP_S:
        processes.update(find_processes(token))
        if not (running := [process for process in processes if _is_running(process)]):
            return
        for process in running:
            with contextlib.suppress(psutil.Error):
                if waited > GRACE_S + TERM_S:
                    process.kill()
                elif waited > GRACE_S and process not in terminated:
                    terminated.add(process)
                    process.terminate()
        time.sleep(_POLL_S)


def _is_running(process: psutil.Process) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def watch(token: str, stream: IO[bytes]) -> None:
    """Wait until the command ends, then end the processes that it has started.

    Args:
        token: token of the command.
        stream: stream whose other end the command holds open; it closes when the command ends.
    """
    known: set[psutil.Process] = set()
    # A thread waits for the end of the stream: on Windows, `select` knows only sockets.
    reader = threading.Thread(target=stream.read, daemon=True)
    reader.start()
    while reader.is_alive():
        known.update(find_processes(token))
        reader.join(REMEMBER_EVERY_S)
    end_processes(token, known)


if __name__ == "__main__":
    watch(sys.argv[1], sys.stdin.buffer)
