"""Ends every command the same way: one sentence for a fault, and an exit code that tells."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hellm_recbole.errors import HellmError, describe_unexpected, strip_controls
from hellm_recbole.system.disk import explain, is_full
from hellm_recbole.system.signals import redirect_signals, stop_signals

EXIT_UNEXPECTED = 1
EXIT_FAULT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXIT_UNREAD = 141  # 128 + SIGPIPE
EXIT_STOPPED = 128  # and the number of the signal: 143 for SIGTERM, 129 for SIGHUP


def run_main(main: Callable[[], int]) -> int:
    """Exit code of `main`.

    A `HellmError`, or what the system says of a file or folder, becomes `error: <sentence>` on stderr and 2. Any other
    exception is a fault of this project: it becomes a sentence too, with a file that holds its traceback, and 1. Ctrl-C
    becomes 130, SIGTERM, with which schedulers stop a process, 143, SIGHUP, of a terminal that closes, 129, and a
    reader of stdout that left (`| head`) 141.
    """
    terminated: list[int] = []

    def stop_process(number: int, frame: Any) -> None:
        terminated.append(number)
        _leave_lost_terminal()
        raise KeyboardInterrupt

    try:
        with redirect_signals(stop_process, *stop_signals()):
            code = main()
            sys.stdout.flush()
        return code
    except HellmError as error:
        print_error(str(error))
        return EXIT_FAULT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end of the process
        return EXIT_UNREAD
    except OSError as error:
        print_error(_describe_os_error(error))
        return EXIT_FAULT
    except KeyboardInterrupt:
        print("stopped: finished work is kept; the same command goes on where it stopped", file=sys.stderr)
        return EXIT_STOPPED + terminated[0] if terminated else EXIT_INTERRUPTED
    except Exception as error:  # nobody shall read a traceback on the screen
        print_error(f"{describe_unexpected(error)}; finished work is kept{_keep_traceback()}")
        return EXIT_UNEXPECTED


def _describe_os_error(error: OSError) -> str:
    """What the system says of a file or folder, where it names one."""
    advice = "check the path, its permissions and the space left"
    if not isinstance(error.filename, str | bytes | os.PathLike):  # a number for a file that is open
        return describe_unexpected(error) if is_full(error) else f"{error.strerror or error}; {advice}"
    path = Path(os.fsdecode(error.filename))
    return f"{path}: {explain(error, path, advice)}"


def print_error(sentence: str) -> None:
    """Print `error: <sentence>` as one line on stderr."""
    print(f"error: {strip_controls(sentence)}", file=sys.stderr)


def _keep_traceback() -> str:
    """Write the traceback of the current exception to a temporary file; says where, as the end of a sentence."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="hellm-recbole-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as stream:
            stream.write(traceback.format_exc())
    except OSError:
        return ""
    return f" (see {stream.name}, and report it if nothing in the sentence can be changed)"


def _leave_lost_terminal() -> None:
    """Write to nowhere what went to a terminal that has been closed; another write would be a fault of its own."""
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
