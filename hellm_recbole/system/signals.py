"""Who hears of Ctrl-C, SIGTERM and SIGHUP, for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | int | None


def stop_signals() -> tuple[int, ...]:
    """Signals that stop a process: SIGTERM, and SIGHUP, of a terminal that closes, unless `nohup` has it ignored."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGTERM,) if ignored else (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def redirect_signals(handler: Handler, *numbers: int) -> Iterator[None]:
    """Handle signals in the block, and afterwards as before, whoever has set other handlers meanwhile.

    Nothing is done outside the main thread, which alone can set handlers, and for a handler that is not Python's.

    Args:
        handler: as `signal.signal` takes it.
        numbers: of the signals.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    ours = {number: found for number, found in before.items() if found is not None and handler is not None}
    if threading.current_thread() is not threading.main_thread():
        ours = {}
    for number in ours:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, found in ours.items():
            signal.signal(number, found)
