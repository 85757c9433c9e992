"""The process a run lives in: threads, memory allocator, device, versions, peak memory."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hellm_recbole.errors import SettingsError

# mallopt parameters of glibc. Fresh pages for every large temporary cost more than the arithmetic on small machines.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES = 1 << 30
_CHECKED_OF_RECBOLE = ("Pop", "ItemKNN", "BPR")  # trained twice with two threads by a test


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next large tensor, and torch ask for huge pages; before the first tensor.

    Rows of tables larger than the caches are fetched more than twice as fast from huge pages. Settings of the
    environment (`MALLOC_TRIM_THRESHOLD_` and the like, `THP_MEM_ALLOC_ENABLE`) win.

    Returns:
        Whether freed memory is kept; False without glibc.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it when it first allocates; Linux only
    if any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ):
        return True
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    limits = ((_MMAP_THRESHOLD, _KEPT_BYTES), (_TRIM_THRESHOLD, _KEPT_BYTES), (_TOP_PAD, 64 << 20))
    return all(libc.mallopt(name, value) == 1 for name, value in limits)


def choose_device(name: str, option: str = "--device") -> torch.device:
    """`auto` is the GPU if there is one, else the CPU.

    Args:
        name: auto, or a device of torch's.
        option: of the command line that names it, for messages.

    Raises:
        SettingsError: the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"{option} {name}: no such device here; use auto, cpu or cuda:N") from error
    return device


@contextmanager
def use_deterministic_sums(device: torch.device) -> Iterator[None]:
    """Let torch sum in a fixed order on a CPU, whatever its threads do; nothing changes on other devices.

    The gradient of `table[ids]` is summed by all threads at once, so that its last bits differ from run to run.
    Our own models use `F.embedding` and `index_select` instead; this is for models of RecBole and of other packages.

    Args:
        device: that the model is trained on.
    """
    if device.type != "cpu":
        yield
        return
    mode = torch.get_deterministic_debug_mode()
    filling: Any = torch.utils.deterministic  # its attribute is made at run time
    fill = filling.fill_uninitialized_memory
    torch.set_deterministic_debug_mode(max(mode, 1))  # 1 warns, 2 raises, where torch has no deterministic form
    filling.fill_uninitialized_memory = False  # this costs time, and no number depends on it
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        filling.fill_uninitialized_memory = fill


def is_deterministic(device: torch.device, n_threads: int, model: str, source: str) -> bool:
    """Whether two runs give equal numbers to the last bit, with the same versions, kind of machine, threads and seed.

    On a CPU our models do, with any number of threads; `tests/baselines/test_two_threads.py` trains each of them twice.
    Other numbers of threads round otherwise. `use_deterministic_sums` orders the sums of RecBole's models too, but some
    of them call other libraries, so with several threads only those that the test trains are promised. On CUDA
    `index_add` and other operations add with atomics, in an order that differs from run to run.

    Args:
        device: that the run was trained on.
        n_threads: of torch.
        model: its name.
        source: `hellm_recbole` or `recbole`, whose model it is.

    >>> is_deterministic(torch.device("cpu"), 2, "GRCN", "hellm_recbole")
    True
    >>> is_deterministic(torch.device("cuda"), 2, "GRCN", "hellm_recbole")
    False
    """
    if device.type != "cpu":
        return False
    return n_threads == 1 or source == "hellm_recbole" or model in _CHECKED_OF_RECBOLE


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak measurement, so that each row has its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    counter = Path("/proc/self/clear_refs")
    if counter.exists():
        counter.write_text("5")  # resets the high-water mark of resident memory


def measure_peak_memory(device: torch.device) -> dict[str, int | None]:
    """Peak resident memory of the process since the last reset, and of the device.

    Without /proc the host figure is the peak since the process began.
    """
    status = Path("/proc/self/status")
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        host = int(line.split()[1]) * 1024
    return {"host": host, "device": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None}


def describe_device(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {platform.machine()}"


def list_versions() -> dict[str, str | None]:
    """Versions of everything a number depends on; None if a package is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("hellm-recbole", "torch", "recbole", "transformers", "peft", "numpy"):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = None
        found[package.replace("-", "_")] = version
    return found


def read_git_state() -> dict[str, Any]:
    """Commit of the checkout this package lies in, and whether it had uncommitted changes; None outside one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):  # no git program, or a repository without commits
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": bool(status)}
