"""Connect to a Ray cluster: a local one that always ends with the command, or one that is already running.

Ray is imported in the functions that need it, so that commands that do not use it start fast.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from hellm_recbole.config.request import LOCAL
from hellm_recbole.errors import HellmError, SettingsError, take_last_line
from hellm_recbole.system import runtime, watchdog
from hellm_recbole.system.signals import redirect_signals
from hellm_recbole.system.watchdog import VARIABLE

CONNECT_S = 10.0
WATCHDOG_S = 15.0  # how long a command waits at its end for the processes of Ray to end

# No usage statistics are sent, trials write their own results, and this project handles Ctrl-C.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a task that requests no GPU sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # no progress tables of Ray between our own lines
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def connect_cluster(address: str, n_cpus: int | None) -> Iterator[None]:
    """Connect to a Ray cluster for the duration of the `with` block.

    Args:
        address: `local` starts a cluster on this machine that ends with the block; `auto` uses the cluster that is
            already running on this machine; `ray://HOST:PORT` and `HOST:PORT` use a remote cluster.
        n_cpus: number of CPUs of a local cluster; None takes all.

    Raises:
        HellmError: there is no cluster at the address.
    """
    for name, value in _ENVIRONMENT.items():  # before the import, for Ray reads some of them when it is imported
        os.environ.setdefault(name, value)
    import ray

    if address != LOCAL:
        _refuse_unreachable(address)
        _enable_token()
    only_local: dict[str, Any] = {"num_cpus": n_cpus, "include_dashboard": False} if address == LOCAL else {}
    with ExitStack() as stack:
        token = stack.enter_context(_start_watchdog()) if address == LOCAL else ""
        try:
            # Keep our handler of SIGTERM; Ray's prints a stack and aborts.
            with redirect_signals(signal.getsignal(signal.SIGTERM), signal.SIGTERM), _set_variable(VARIABLE, token):
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **only_local)
        except Exception as error:  # of many kinds; a node that starts too slowly is a plain `Exception`
            raise _make_cluster_error(address, take_last_line(error)) from error
        stack.callback(ray.shutdown)
        yield


@contextmanager
def _start_watchdog() -> Iterator[str]:
    """Start a process that ends all processes of the local Ray cluster if this process is killed.

    Yields:
        The token by which the watchdog recognises the processes of this cluster.
    """
    token = secrets.token_hex(8)
    command = [sys.executable, "-P", watchdog.__file__, token]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, cwd=os.sep, start_new_session=True
    )
    try:
        yield token
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(WATCHDOG_S)


@contextmanager
def _set_variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for the processes that start in the block. An empty value sets nothing."""
    if value:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _refuse_unreachable(address: str) -> None:
    """Refuse an address at which no process listens. Ray itself would try for minutes.

    Raises:
        HellmError: no process listens at the address.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise _make_cluster_error(address, error.strerror or str(error)) from error


def _enable_token() -> None:
    """Authenticate with the token of this user's clusters if there is one, as `ray start` does.

    A local cluster leaves a token behind. From then on `ray start` requires it, but `ray.init` does not send it by
    itself.
    """
    try:
        from ray._private.authentication import authentication_token_setup as setup
    except ImportError:  # an older Ray, which has no tokens
        return
    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _make_cluster_error(address: str, reason: str) -> HellmError:
    if address == LOCAL:
        return HellmError(
            f"Ray could not start on this machine ({reason}); give the same command again when the machine is less busy"
        )
    return HellmError(
        f"no Ray cluster answers at {address!r} ({reason}); start one with `ray start --head`, or leave the address out"
    )


def refuse_gpu_number(device: str) -> None:
    """Refuse a device with a GPU number. On a cluster Ray assigns a GPU to each task, which sees it as number 0.

    Raises:
        SettingsError: the device has a number.
    """
    if ":" in device:
        raise SettingsError(
            f"--device {device}: on a Ray cluster the device must be auto, cpu or cuda; Ray chooses the GPU itself"
        )


def request_resources(n_cpus: float, n_gpus: float, name: str = "ray_cpus") -> dict[str, float]:
    """Return the resources that a task requests from the cluster. GPUs are requested only if the cluster has any.

    Args:
        n_cpus: number of CPUs of the task.
        n_gpus: number of GPUs of the task.
        name: name of the setting with the number of CPUs, for the message.

    Returns:
        Number of CPUs under "cpu" and number of GPUs under "gpu".

    Raises:
        SettingsError: no node of the cluster has so many CPUs.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    largest = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
    if n_cpus > largest:
        raise SettingsError(f"{name} is {n_cpus:g}, but the largest node of the Ray cluster has {largest:g} CPUs")
    gpus = n_gpus if any(node.get("GPU", 0.0) > 0 for node in nodes) else 0.0
    return {"cpu": n_cpus, "gpu": gpus}


def enter_worker(folder: Path, n_cpus: float) -> None:
    """Set the working folder, memory allocator and number of threads of a worker as in the process of a command."""
    if folder.is_dir():  # it may not exist on another machine
        os.chdir(folder)
    runtime.keep_freed_memory()
    torch.set_num_threads(max(1, int(n_cpus)))
    # Arrays in Ray's shared memory are read-only. This project never writes to arrays that it receives.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
