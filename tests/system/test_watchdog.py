"""The watchdog ends the processes with its token, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from hellm_recbole.system import watchdog
from hellm_recbole.system.watchdog import VARIABLE

SLEEP = "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(600)"


@pytest.fixture
def sleepers() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Processes with this token, with another one and without any; all of them ignore SIGTERM."""
    started = {}
    for name, token in (("ours", "a"), ("of others", "b"), ("unmarked", None)):
        marked = {} if token is None else {VARIABLE: token}
        started[name] = subprocess.Popen(
            [sys.executable, "-c", SLEEP], env={**os.environ, **marked}, stdout=subprocess.PIPE, text=True
        )
    for process in started.values():
        assert process.stdout is not None
        process.stdout.readline()
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


def test_only_processes_with_the_token_end_and_only_after_the_command(
    sleepers: dict[str, subprocess.Popen[str]],
) -> None:
    command = [sys.executable, "-P", watchdog.__file__, "a"]
    script = subprocess.Popen(command, stdin=subprocess.PIPE)
    time.sleep(1.0)
    assert [process.poll() for process in sleepers.values()] == [None] * 3
    script.communicate(b"", timeout=60)
    assert sleepers["ours"].wait(timeout=5) == -signal.SIGKILL
    assert [sleepers[name].poll() for name in ("of others", "unmarked")] == [None, None]


def test_it_ends_at_once_without_processes_to_end() -> None:
    start = time.monotonic()
    watchdog.end_processes("a token of no process")
    assert time.monotonic() - start < 2 * watchdog.GRACE_S


@pytest.mark.slow
def test_a_child_without_the_token_that_outlives_its_parent_ends_too() -> None:
    child = (
        f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], env={{}})\n"
        "print(p.pid, flush=True)\ninput()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", child],
        env={**os.environ, VARIABLE: "hidden"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    hidden = psutil.Process(int(parent.stdout.readline()))
    assert watchdog._is_running(hidden)
    script = subprocess.Popen([sys.executable, "-P", watchdog.__file__, "hidden"], stdin=subprocess.PIPE)
    time.sleep(2 * watchdog.REMEMBER_EVERY_S)
    parent.kill()  # the child has no parent with the token any more
    parent.wait()
    script.communicate(b"", timeout=60)
    assert not watchdog._is_running(hidden)
