from __future__ import annotations

import ctypes
import sys

import psutil
import pytest

from hellm_recbole.system.freed_memory import return_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux only")
def test_memory_of_many_small_objects_goes_back_to_the_system() -> None:
    kept, freed = [], []
    for _ in range(60_000):  # the objects that are kept lie between the others, so the heap's end does not move
        freed.append(bytearray(1000))
        kept.append(bytearray(10))
    del freed
    before = psutil.Process().memory_info().rss
    return_freed_memory()
    assert before - psutil.Process().memory_info().rss > 30 * 2**20
    assert len(kept) == 60_000


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    return_freed_memory()
