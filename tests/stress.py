"""Runs commands in forked processes and kills them: after some seconds, or at a file operation. A script for tests.

Reads one JSON object a line: `command` (module of `benchmarks`), `words`, `folder`, and perhaps `kill_after` (seconds)
or `kill_at` (number of the file operation, from 1). Answers with `code` (negative: the signal), `operations`, `seconds`
and `said` (stderr). The packages are imported once, so that a run takes a second and not ten.

File operations are those of Python. With `kill_at.c` preloaded and a `log` in the job they are those of all code in the
process, such as Ray's copying of files, and are listed in the file `log`.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")  # audit events; writing `open` is one, too


def work(job: dict[str, Any], out: str) -> None:
    """What the forked process does."""
    os.chdir(job["folder"])
    streams = os.open(f"{out}.err", os.O_CREAT | os.O_WRONLY), os.open(os.devnull, os.O_WRONLY)
    os.dup2(streams[0], 2)
    os.dup2(streams[1], 1)
    operations, inside = 0, str(job["folder"])

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal operations
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (writes or event in CHANGES) or not isinstance(arguments[0], str | os.PathLike):
            return
        if not os.path.abspath(os.fspath(arguments[0])).startswith(inside):
            return
        operations += 1
        if operations == job.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)

    native = ctypes.CDLL(None) if "log" in job else None
    if native is None:
        sys.addaudithook(audit)
    else:
        native.kill_at(f"{inside}/".encode(), job.get("kill_at", 0), job["log"].encode())
    code = importlib.import_module(f"benchmarks.{job['command']}").main(job["words"])
    sys.stdout.flush()
    sys.stderr.flush()
    done = operations if native is None else native.operations_done()
    with open(f"{out}.json", "w") as stream:
        json.dump({"code": code, "operations": done}, stream)


def attend(job: dict[str, Any], out: str) -> dict[str, Any]:
    """Fork, perhaps kill, wait, and report."""
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            work(job, out)
        except BaseException as error:
            os.write(2, f"Traceback: {error!r}\n".encode())
        os._exit(0)
    if (wait := job.get("kill_after")) is not None:
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    answer: dict[str, Any] = {"code": os.waitstatus_to_exitcode(status), "operations": 0}
    if os.path.exists(f"{out}.json") and answer["code"] == 0:
        with open(f"{out}.json") as stream:
            answer = json.load(stream)
    with open(f"{out}.err", encoding="utf-8", errors="replace") as stream:
        return {**answer, "seconds": time.monotonic() - began, "said": stream.read()}


if __name__ == "__main__":
    import torch

    for name in ("run", "report", "prepare", "tune"):
        importlib.import_module(f"benchmarks.{name}")
    torch.set_num_threads(1)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as scratch:
            open(f"{scratch}/job.err", "w").close()
            print(json.dumps(attend(json.loads(line), f"{scratch}/job")), flush=True)
