"""Locks between processes: who is refused, and that a lock ends with its holder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hellm_recbole.errors import OutputError
from hellm_recbole.system import locks
from hellm_recbole.system.locks import FolderLock

HOLD = (
    "import sys\nfrom pathlib import Path\nfrom hellm_recbole.system.locks import FolderLock\n"
    "with FolderLock(Path(sys.argv[1]), 'run'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)
COUNT = """
import sys, time
from pathlib import Path
from hellm_recbole.errors import OutputError
from hellm_recbole.system.locks import FolderLock
folder, counter = Path(sys.argv[1]), Path(sys.argv[2])
done = 0
while done < 50:
    try:
        with FolderLock(folder, 'run'):
            value = int(counter.read_text())
            time.sleep(0.0005)
            counter.write_text(str(value + 1))
            done += 1
    except OutputError:
        time.sleep(0.001)
"""

# Windows' `msvcrt.locking`, done with a lock of POSIX on the same bytes.
MSVCRT = """
import errno, fcntl, os, sys, types
import psutil
def locking(file, mode, n_bytes):
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, n_bytes, os.lseek(file, 0, os.SEEK_CUR))
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
sys.modules["fcntl"] = None
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of `tmp_path / "run"` until its input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_message_for_the_second_process_names_the_first(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(OutputError, match=r"^run of Toy is in use by process") as fault:
        FolderLock(tmp_path / "run", "run of Toy").acquire()
    assert f"process {holder.pid} on {platform.node()} since 20" in str(fault.value)
    with FolderLock(tmp_path / "other", "another run"):
        pass
    holder.communicate("")
    with FolderLock(tmp_path / "run", "run of Toy"):
        assert json.loads((tmp_path / ".run.lock").read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_a_killed_holder_leaves_no_lock(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".run.lock").exists()
    with FolderLock(tmp_path / "run", "run"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_lock_file_without_a_lock_is_ignored(tmp_path: Path) -> None:
    """The id of a killed holder may now belong to another living process."""
    (tmp_path / ".run.lock").write_text(json.dumps({"pid": os.getppid(), "host": platform.node(), "since": "2020"}))
    with FolderLock(tmp_path / "run", "run"):
        pass


def test_a_lock_is_released_after_an_error_and_removes_only_its_own_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), FolderLock(tmp_path / "run", "run"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    with FolderLock(tmp_path / "run", "run"):
        (tmp_path / ".run.lock").unlink()
        (tmp_path / ".run.lock").write_text("of another process")
    assert os.listdir(tmp_path) == [".run.lock"]


def test_a_file_system_without_locks_gives_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    locks._warn_unsupported.cache_clear()
    for _ in range(2):
        with FolderLock(tmp_path / "run", "run"):
            pass
    assert capsys.readouterr().err.count("has no locks (No locks available)") == 1


def test_four_processes_never_hold_the_lock_at_the_same_time(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "run"), str(counter)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert counter.read_text() == "200"
    assert os.listdir(tmp_path) == ["counter"]


def test_windows_locks_one_byte_and_the_name_of_the_holder_can_be_read(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MSVCRT + HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        second = subprocess.run(command, capture_output=True, text=True, check=False, input="")
        assert f"run is in use by process {holder.pid} on {platform.node()} since 20" in second.stderr
        holder.communicate("")
    assert subprocess.run(command, capture_output=True, text=True, check=False, input="").stdout == "held\n"
    assert os.listdir(tmp_path) == []
