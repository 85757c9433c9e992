"""Script for tests that runs commands in forked processes and kills them after some seconds or at a file operation.

It reads one JSON object from each line of stdin: `command` (module of `benchmarks`), `words` (arguments), `folder`, and
optionally `kill_after` (seconds) or `kill_at` (number of the file operation, from 1). It answers with `code` (negative
for a signal), `operations`, `seconds` and `said` (stderr). The packages are imported only once, so that a run takes
about one second instead of ten.

By default, only the file operations of Python count. With `kill_at.c` preloaded and a `log` in the job, the file
operations of all code in the process count, for example when Ray copies files. They are listed in the file `log`.
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

# Audit events that count as file operations. An `open` for writing counts too.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def run_job(job: dict[str, Any], out: str) -> None:
    """Run the command of a job in the forked process."""
    os.chdir(job["folder"])
    streams = os.open(f"{out}.err", os.O_CREAT | os.O_WRONLY), os.open(os.devnull, os.O_WRONLY)
    os.dup2(streams[0], 2)
    os.dup2(streams[1], 1)
    operations, job_folder = 0, str(job["folder"])

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal operations
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (writes or event in CHANGES) or not isinstance(arguments[0], str | os.PathLike):
            return
        if not os.path.abspath(os.fspath(arguments[0])).startswith(job_folder):
            return
        operations += 1
        if operations == job.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)

    native = ctypes.CDLL(None) if "log" in job else None
    if native is None:
        sys.addaudithook(audit)
    else:
        native.kill_at(f"{job_folder}/".encode(), job.get("kill_at", 0), job["log"].encode())
    code = importlib.import_module(f"hellm_recbole.benchmarks.{job['command']}").main(job["words"])
    sys.stdout.flush()
    sys.stderr.flush()
    n_operations = operations if native is None else native.operations_done()
    with open(f"{out}.json", "w") as stream:
        json.dump({"code": code, "operations": n_operations}, stream)


def supervise_job(job: dict[str, Any], out: str) -> dict[str, Any]:
    """Fork a process for a job, kill it if the job says so, wait for it and return the outcome."""
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            run_job(job, out)
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
        return {**answer, "seconds": time.monotonic() - start, "said": stream.read()}


if __name__ == "__main__":
    import torch

    tasks = ("comparison", "reporting", "preparation", "tuning_tasks")
    for name in (*(f"tasks.{task}" for task in tasks), "run", "report", "prepare", "tune"):
        importlib.import_module(f"hellm_recbole.benchmarks.{name}")
    torch.set_num_threads(1)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as scratch:
            open(f"{scratch}/job.err", "w").close()
            print(json.dumps(supervise_job(json.loads(line), f"{scratch}/job")), flush=True)
