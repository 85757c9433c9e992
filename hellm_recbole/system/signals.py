"""Handle Ctrl-C, SIGTERM and SIGHUP in another way for the duration of a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

IMPORT_POLL_S = 0.02  # time after which a signal that arrived during an import is tried again
_HAS_TIMER = hasattr(signal, "setitimer")  # not on Windows
Handler = Callable[[int, FrameType | None], object] | int | None


def list_stop_signals() -> tuple[int, ...]:
    """Return the signals that stop a process: SIGTERM, and SIGHUP (the terminal closes) unless `nohup` ignores it.

    Windows has SIGBREAK in place of SIGHUP.
    """
    hang_up: int | None = getattr(signal, "SIGHUP", getattr(signal, "SIGBREAK", None))
    if hang_up is None or signal.getsignal(hang_up) == signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, hang_up)


@contextmanager
def redirect_signals(handler: Handler, *numbers: int) -> Iterator[None]:
    """Use another handler for some signals in the block, and restore the previous handlers afterwards.

    Nothing is changed outside the main thread, because only the main thread can set handlers. A signal whose current
    handler was not set by Python keeps its handler.

    Args:
        handler: handler, as for `signal.signal`.
        numbers: numbers of the signals.
    """
    previous = {number: signal.getsignal(number) for number in numbers}
    replaced = {number: old for number, old in previous.items() if old is not None and handler is not None}
    if threading.current_thread() is not threading.main_thread():
        replaced = {}
    for number in replaced:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in replaced.items():
            signal.signal(number, old)


def is_importing(frame: FrameType | None) -> bool:
    """Return whether a module is being imported in a frame or in one of its callers.

    An exception inside an import leaves a half-loaded package, and some packages catch it.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def redirect_outside_imports(handler: Callable[[int, FrameType | None], object], *numbers: int) -> Iterator[None]:
    """Use another handler for some signals in the block, and call it after the import if a module is being imported.

    A signal that still waits at the end of the block is dropped.

    Args:
        handler: handler, which may raise an exception.
        numbers: numbers of the signals.
    """
    waiting: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if is_importing(frame):
            waiting[:] = waiting or [number]
            _send_later(number)
        else:
            handler(number, frame)

    def handle_again(_: int, frame: FrameType | None) -> None:
        if waiting:
            handle(waiting[0], frame)

    alarms = (signal.SIGALRM,) if _HAS_TIMER else ()
    with redirect_signals(handle_again, *alarms), redirect_signals(handle, *numbers):
        try:
            yield
        finally:
            if waiting and _HAS_TIMER:
                signal.setitimer(signal.ITIMER_REAL, 0)


def _send_later(number: int) -> None:
    """Send a signal to this process once more after `IMPORT_POLL_S`: SIGALRM where there is one, else the same one."""
    if _HAS_TIMER:
        signal.setitimer(signal.ITIMER_REAL, IMPORT_POLL_S)
        return
    timer = threading.Timer(IMPORT_POLL_S, signal.raise_signal, (number,))  # Python handles it in the main thread
    timer.daemon = True
    timer.start()


@contextmanager
def delay_signals() -> Iterator[None]:
    """Delay Ctrl-C, SIGTERM and SIGHUP until the end of the block, for example while a checkpoint is written."""
    arrived: list[int] = []
    try:
        with redirect_signals(lambda number, frame: arrived.append(number), signal.SIGINT, *list_stop_signals()):
            yield
    finally:
        if arrived:
            signal.raise_signal(arrived[0])
