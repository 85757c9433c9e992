"""End a local Ray when the command that started it ends, however it ends: also by SIGKILL, which no process can answer.

Run as a script, `python -P watchdog.py TOKEN`, by that command. Everything that Ray starts inherits an environment
variable with the token, which is how the processes of this very Ray are known from those of any other. The script
imports nothing of this package, so that it starts at once and stays small.
"""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Iterable
from typing import IO

import psutil

VARIABLE = "HELLM_RAY_OWNER"
GRACE_S = 2.0  # for what ends by itself, as most of Ray does after `ray.shutdown`
TERM_S = 4.0  # from SIGTERM to SIGKILL
GIVE_UP_S = 30.0
_LOOK_EVERY_S = 0.2
REMEMBER_EVERY_S = 2.0


def find_processes(token: str) -> list[psutil.Process]:
    """Processes that were started with the token in their environment, and their descendants; never this process."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(VARIABLE) == token:
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    found.pop(psutil.Process().pid, None)
    return [process for process in found.values() if _runs(process)]


def end_processes(token: str, known: Iterable[psutil.Process] = ()) -> None:
    """Wait a little for the processes of a token to end, then end them.

    Ray's agents overwrite their environment. They are known as children of a process that has the token, for as long as
    that lives, and so have to be remembered.

    Args:
        token: of the command that has ended.
        known: processes that were found before.
    """
    began = time.monotonic()
    every, terminated = set(known), set()
    while (waited := time.monotonic() - began) < GIVE_UP_S:
        every.update(find_processes(token))
        if not (left := [process for process in every if _runs(process)]):
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                if waited > GRACE_S + TERM_S:
                    process.kill()
                elif waited > GRACE_S and process not in terminated:
                    terminated.add(process)
                    process.terminate()
        time.sleep(_LOOK_EVERY_S)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def watch(token: str, stream: IO[bytes]) -> None:
    """Wait for the other end of a stream to close, as the end of the command does, then end what it has started."""
    known: set[psutil.Process] = set()
    while not select.select([stream], [], [], REMEMBER_EVERY_S)[0]:
        known.update(find_processes(token))
    end_processes(token, known)


if __name__ == "__main__":
    watch(sys.argv[1], sys.stdin.buffer)
