"""Ends every command the same way: one sentence for a fault a user can mend, and an exit code that tells."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hellm_recbole.errors import HellmError

EXIT_FAULT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def run_main(main: Callable[[], int]) -> int:
    """Exit code of `main`; a `HellmError` becomes `error: <sentence>` on stderr and 2, Ctrl-C becomes 130."""
    try:
        return main()
    except HellmError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAULT
    except KeyboardInterrupt:
        print("stopped: finished work is kept; the same command goes on from the last epoch", file=sys.stderr)
        return EXIT_INTERRUPTED
