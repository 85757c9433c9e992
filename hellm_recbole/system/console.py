"""End every command in the same way: print one sentence for an error and return its exit code."""

from __future__ import annotations

import os
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hellm_recbole.errors import HellmError, strip_controls
from hellm_recbole.system.disk import explain_write_error, is_full
from hellm_recbole.system.signals import list_stop_signals, redirect_outside_imports
from hellm_recbole.system.unexpected import describe_unexpected

EXIT_UNEXPECTED = 1
EXIT_FAULT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in shells
EXIT_UNREAD = 141  # 128 + SIGPIPE
EXIT_STOPPED = 128  # the number of the signal is added: 143 for SIGTERM, 129 for SIGHUP


def run_main(main: Callable[[], int], after_stop: str = "give the same command again to resume") -> int:
    """Run the main function of a command and return the exit code of the process.

    An exception is printed to stderr as one sentence:

    - `HellmError`, or an `OSError` of a file or folder: exit code 2.
    - Any other exception is a bug of this project. Its traceback is written to a temporary file: exit code 1.
    - Ctrl-C: 130. SIGTERM, which schedulers send: 143. SIGHUP, when the terminal closes: 129.
    - The reader of stdout has ended (`| head`): 141, and nothing is printed.

    Args:
        main: function of the command; it returns an exit code.
        after_stop: what to do after the command was stopped, for the message.
    """
    signals: list[int] = []

    def stop_process(number: int, frame: Any) -> None:
        signals.append(number)
        _detach_closed_terminal()
        raise KeyboardInterrupt

    try:
        with redirect_outside_imports(stop_process, signal.SIGINT, *list_stop_signals()):
            code = main()
            sys.stdout.flush()
        return code
    except HellmError as error:
        print_error(str(error))
        return EXIT_FAULT
    except BrokenPipeError:
        # Python flushes stdout once more when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD
    except OSError as error:
        print_error(_describe_os_error(error))
        return EXIT_FAULT
    except KeyboardInterrupt:
        print(f"stopped: finished work is kept; {after_stop}", file=sys.stderr)
        return EXIT_STOPPED + signals[0] if signals else EXIT_INTERRUPTED
    except Exception as error:  # users must not see a traceback
        print_error(f"{describe_unexpected(error)}; finished work is kept{_save_traceback()}")
        return EXIT_UNEXPECTED


def _describe_os_error(error: OSError) -> str:
    """Describe an error of the operating system; the sentence begins with the file or folder if the error has one."""
    advice = "check the path, its permissions and the space left"
    if not isinstance(error.filename, str | bytes | os.PathLike):  # an open file has a number in place of a path
        return describe_unexpected(error) if is_full(error) else f"{error.strerror or error}; {advice}"
    path = Path(os.fsdecode(error.filename))
    return f"{path}: {explain_write_error(error, path, advice)}"


def print_error(sentence: str) -> None:
    """Print `error: <sentence>` as one line to stderr."""
    print(f"error: {strip_controls(sentence)}", file=sys.stderr)


def _save_traceback() -> str:
    """Write the current traceback to a temporary file and return the end of a sentence that names this file."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="hellm-recbole-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as stream:
            stream.write(traceback.format_exc())
    except OSError:
        return ""
    return f" (the traceback is in {stream.name}; report it if the sentence does not help)"


def _detach_closed_terminal() -> None:
    """Redirect stdout and stderr to /dev/null if their terminal is closed; writing to a closed terminal is an error."""
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
