"""How every command ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from hellm_recbole.console import run_main
from hellm_recbole.errors import DataError


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("a file is odd"), 2, "error: a file is odd"),
        (
            PermissionError(13, "Permission denied", "/some/file"),
            2,
            "error: /some/file: Permission denied; check the path, its permissions and the space left",
        ),
        (KeyboardInterrupt(), 130, "stopped: finished work is kept; the same command goes on where it stopped"),
    ],
)
def test_a_fault_is_one_sentence_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(raising(error)) == code
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


def test_our_own_mistakes_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_main(raising(ZeroDivisionError()))


def test_a_reader_that_leaves_is_no_fault() -> None:
    script = (
        "from hellm_recbole.console import run_main; import sys; sys.exit(run_main(lambda: print('x' * 10**6) or 0))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
