from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from hellm_recbole.system import signals
from hellm_recbole.system.signals import delay_signals, list_stop_signals, redirect_outside_imports, redirect_signals

SELF_STOPPING = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
try:
    time.sleep(0.1)
except BaseException:
    pass  # as packages do that try an import
complete = True
"""


def stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def import_self_stopping() -> None:
    importlib.import_module("self_stopping")
    time.sleep(5)
    pytest.fail("the signal was lost")


def stop_self() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    pytest.fail("the signal was delayed")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that sends Ctrl-C to its own process while it is imported."""
    (tmp_path / "self_stopping.py").write_text(SELF_STOPPING)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    assert sys.modules.pop("self_stopping").complete


@pytest.mark.usefixtures("module")
def test_a_signal_during_an_import_comes_after_it() -> None:
    previous = signal.getsignal(signal.SIGALRM)
    with redirect_outside_imports(stop, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        import_self_stopping()
    assert signal.getsignal(signal.SIGALRM) == previous


@pytest.mark.usefixtures("module")
def test_a_signal_that_still_waits_at_the_end_is_dropped() -> None:
    with redirect_outside_imports(stop, signal.SIGINT):
        importlib.import_module("self_stopping")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_signal_outside_of_imports_comes_at_once() -> None:
    with redirect_outside_imports(stop, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        stop_self()


def stop_self_with_delay() -> None:
    with delay_signals():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("reached")


def test_a_delayed_signal_comes_after_the_block() -> None:
    with redirect_signals(stop, signal.SIGINT), pytest.raises(KeyboardInterrupt) as caught:
        stop_self_with_delay()
    assert isinstance(caught.value.__context__, ValueError)


@pytest.mark.usefixtures("module")
def test_without_timers_a_signal_during_an_import_comes_after_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no timers that send signals."""
    monkeypatch.setattr(signals, "_HAS_TIMER", False)
    with redirect_outside_imports(stop, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        import_self_stopping()


def test_the_signals_that_stop_a_process_are_those_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_stop_signals() == (signal.SIGTERM, signal.SIGHUP)
    monkeypatch.delattr(signal, "SIGHUP")
    assert list_stop_signals() == (signal.SIGTERM,)
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    assert list_stop_signals() == (signal.SIGTERM, signal.SIGUSR1)
