"""Properties of the process of a run: threads, memory allocator, device, package versions, peak memory."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from hellm_recbole.errors import SettingsError

# mallopt parameters of glibc. On small machines, new pages for each large tensor cost more time than the arithmetic.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES = 1 << 30
_CHECKED_RECBOLE_MODELS = ("Pop", "ItemKNN", "BPR")  # a test trains each of them twice with two threads


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next large tensor, and torch use huge pages; call it before the first tensor.

    Reading rows of a table that is larger than the caches is more than twice as fast from huge pages. Environment
    variables have priority (`MALLOC_TRIM_THRESHOLD_` and similar ones, `THP_MEM_ALLOC_ENABLE`).

    Returns:
        Whether freed memory is kept; False without glibc.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it at its first allocation; Linux only
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
    """Return the torch device of a name; `auto` is a CUDA GPU if there is one, else the GPU of a Mac, else the CPU.

    Args:
        name: `auto`, or the name of a torch device, such as `cuda:0`, `mps` or `cpu`.
        option: command-line option that names the device, for messages.

    Raises:
        SettingsError: the device is unknown, or does not exist on this machine.
    """
    if name == "auto":
        return torch.device(_list_kinds()[0])
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        *others, last = ["auto", *list_devices()]
        raise SettingsError(f"{option} {name}: no such device here; use {', '.join(others)} or {last}") from error
    return device


def list_devices() -> list[str]:
    """Return the names of all devices of this machine that `choose_device` accepts."""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *mps, *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]


def _list_kinds() -> list[str]:
    """Return the kinds of devices of this machine, the one that `auto` takes first."""
    exists = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [kind for kind, found in exists.items() if found]


@contextmanager
def use_deterministic_sums(device: torch.device) -> Iterator[None]:
    """Let torch sum in a fixed order on a CPU with any number of threads; on other devices nothing changes.

    By default all threads sum the gradient of `table[ids]` at the same time, so its last bits differ between runs. The
    models of this project use `F.embedding` and `index_select` instead; this setting is for models of RecBole and of
    other packages.

    Args:
        device: device that the model is trained on.
    """
    if device.type != "cpu":
        yield
        return
    mode = torch.get_deterministic_debug_mode()
    settings: Any = torch.utils.deterministic  # torch creates its attribute at run time
    fill = settings.fill_uninitialized_memory
    # For an operation without a deterministic form, mode 1 warns and mode 2 raises.
    torch.set_deterministic_debug_mode(max(mode, 1))
    settings.fill_uninitialized_memory = False  # filling costs time and changes no result
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        settings.fill_uninitialized_memory = fill


def is_deterministic(device: torch.device, n_threads: int, model: str, source: str) -> bool:
    """Return whether two runs with equal versions, kind of machine, threads and seed give bit-identical results.

    On a CPU this holds for the models of this project with any number of threads; `tests/baselines/test_two_threads.py`
    trains each of them twice. Results with different numbers of threads differ by rounding. `use_deterministic_sums`
    orders the sums of RecBole's models too, but some of them call other libraries. With several threads the result is
    therefore True only for those RecBole models that the test trains. On CUDA, `index_add` and other operations use
    atomic additions, whose order differs between runs.

    Args:
        device: device that the run was trained on.
        n_threads: number of torch threads.
        model: name of the model.
        source: package of the model, `hellm_recbole` or `recbole`.

    >>> is_deterministic(torch.device("cpu"), 2, "GRCN", "hellm_recbole")
    True
    >>> is_deterministic(torch.device("cuda"), 2, "GRCN", "hellm_recbole")
    False
    """
    if device.type != "cpu":
        return False
    return n_threads == 1 or source == "hellm_recbole" or model in _CHECKED_RECBOLE_MODELS


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the peak memory, so that each run has its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    counter = Path("/proc/self/clear_refs")
    if counter.exists():
        counter.write_text("5")  # resets the peak of the resident memory


def measure_peak_memory(device: torch.device) -> dict[str, int | None]:
    """Return the peak resident memory of the process and the peak memory of the device since the last reset, in bytes.

    Without /proc, the host value is the peak since the process started. The device value is None except on CUDA: torch
    counts the peak of no other device.
    """
    device_peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"host": _measure_host_peak(), "device": device_peak}


def _measure_host_peak() -> int:
    """Return the peak resident memory of the process in bytes: since the last reset on Linux, else since its start."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    memory: Any = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return int(memory.peak_wset)
    try:
        import resource
    except ImportError:
        return int(memory.rss)  # no system that is known to lack all three
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def describe_device(device: torch.device) -> str:
    """Return the name of the device's hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()}"


def list_versions() -> dict[str, str | None]:
    """Return the version of Python and of each package that results depend on; None if it is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("hellm-recbole", "torch", "recbole", "transformers", "peft", "numpy"):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = None
        versions[package.replace("-", "_")] = version
    return versions


def read_git_state() -> dict[str, Any]:
    """Return the commit of the checkout that holds this package, and whether it had uncommitted changes.

    Both are None if the package is not in a checkout.
    """
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
