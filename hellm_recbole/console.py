"""Ends every command the same way: one sentence for a fault a user can mend, and an exit code that tells."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from hellm_recbole.errors import HellmError
from hellm_recbole.signals import signals_go_to

EXIT_FAULT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXIT_UNREAD = 141  # 128 + SIGPIPE
EXIT_TERMINATED = 143  # 128 + SIGTERM


def run_main(main: Callable[[], int]) -> int:
    """Exit code of `main`.

    A `HellmError`, or what the system says of a file or folder, becomes `error: <sentence>` on stderr and 2, Ctrl-C
    becomes 130, SIGTERM, with which schedulers stop a process, 143, and a reader of stdout that left (`| head`) 141.
    """
    terminated: list[int] = []

    def stop(number: int, frame: Any) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    try:
        with signals_go_to(stop, signal.SIGTERM):
            code = main()
            sys.stdout.flush()
        return code
    except HellmError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAULT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end of the process
        return EXIT_UNREAD
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        reason = error.strerror or str(error)
        print(f"error: {where}{reason}; check the path, its permissions and the space left", file=sys.stderr)
        return EXIT_FAULT
    except KeyboardInterrupt:
        print("stopped: finished work is kept; the same command goes on where it stopped", file=sys.stderr)
        return EXIT_TERMINATED if terminated else EXIT_INTERRUPTED
