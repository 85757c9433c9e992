"""How a command ends: its message and exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from hellm_recbole.errors import DataError
from hellm_recbole.system.console import run_main


def fail_with(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("a file is broken"), 2, "error: a file is broken"),
        (
            PermissionError(13, "Permission denied", "/some/file"),
            2,
            "error: /some/file: Permission denied; check the path, its permissions and the space left",
        ),
        (KeyboardInterrupt(), 130, "stopped: finished work is kept; give the same command again to resume"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(fail_with(error)) == code
    assert capsys.readouterr().err == f"{said}\n"


def test_sigterm_ends_a_command_as_ctrl_c_does(capsys: pytest.CaptureFixture[str]) -> None:
    closed = []

    def main() -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            closed.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert run_main(main) == 143
    assert capsys.readouterr().err.startswith("stopped: ")
    assert closed
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("division by zero"), RecursionError(), MemoryError(), KeyError("k")]
)
def test_a_bug_is_one_sentence_and_a_file_with_the_traceback(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_main(fail_with(error)) == 1
    err = capsys.readouterr().err
    (kept,) = tmp_path.iterdir()
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert str(kept) in err
    assert "Traceback" not in err
    assert f"{type(error).__name__}" in kept.read_text()
    assert "Traceback" in kept.read_text()


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()])
def test_other_exceptions_pass_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        run_main(fail_with(error))


def test_escape_sequences_in_a_message_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    error = DataError("model '\x1b[2J\x1b]0;title\x07VBPR\r\x9b31m\u202e' is unknown\nerror: other")
    assert run_main(fail_with(error)) == 2
    assert capsys.readouterr().err == "error: model 'VBPR ' is unknown error: other\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_message_about_a_full_disk_says_what_to_do(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(fail_with(OSError(number, os.strerror(number), "/some/file"))) == 2
    assert f"/some/file: {'no space left' if number == errno.ENOSPC else 'disk quota used up'} on " in (
        said := capsys.readouterr().err
    )
    assert "free some space there or choose another folder" in said
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert run_main(fail_with(full)) == 1
    assert capsys.readouterr().err.startswith("error: no space left on the device; free some space")


def test_a_reader_of_stdout_that_ends_is_no_error() -> None:
    script = (
        "import sys; from hellm_recbole.system.console import run_main; "
        "sys.exit(run_main(lambda: print('x' * 10**6) or 0))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
