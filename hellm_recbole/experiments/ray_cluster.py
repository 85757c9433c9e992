"""Ray: a local cluster that ends with the command, however it ends, or one that is there already."""

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

import ray
import torch

from hellm_recbole.errors import HellmError, SettingsError, take_last_line
from hellm_recbole.system import runtime, watchdog
from hellm_recbole.system.signals import redirect_signals
from hellm_recbole.system.watchdog import VARIABLE

LOCAL = "local"
CONNECT_S = 10.0
WATCHDOG_S = 15.0  # that the end of a command waits for what is left of Ray

# Nothing is sent to anyone; trials keep their own records; Ctrl-C is ours.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a task that asks for no GPU sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # no progress tables of Ray's beside our lines
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def connect_cluster(address: str, n_cpus: int | None) -> Iterator[None]:
    """Be connected to a Ray cluster.

    Args:
        address: `local` starts one on this machine that ends with the block; `auto` takes the one that runs here;
            `ray://HOST:PORT` and `HOST:PORT` take a remote one.
        n_cpus: CPUs of a local cluster; None offers all.

    Raises:
        HellmError: there is no cluster at the address.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address != LOCAL:
        _refuse_silence(address)
        _use_token()
    only_local: dict[str, Any] = {"num_cpus": n_cpus, "include_dashboard": False} if address == LOCAL else {}
    with ExitStack() as stack:
        token = stack.enter_context(_watched()) if address == LOCAL else ""
        try:
            # Ray's handler of SIGTERM prints a stack and aborts.
            with redirect_signals(signal.getsignal(signal.SIGTERM), signal.SIGTERM), _set_variable(VARIABLE, token):
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **only_local)
        except (ConnectionError, ValueError, RuntimeError, ImportError, ray.exceptions.RayError) as error:
            raise _no_cluster(address, take_last_line(error)) from error
        stack.callback(ray.shutdown)
        yield


@contextmanager
def _watched() -> Iterator[str]:
    """Have a process at hand that ends what Ray starts, should this one be killed; yields the token that marks it."""
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
    """Show a variable to the processes that are started in the block; "" sets none."""
    if value:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _refuse_silence(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try for minutes.

    Raises:
        HellmError: nothing listens there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _use_token() -> None:
    """Show the token of this user's clusters where there is one, as `ray start` does.

    A local cluster leaves one behind, from then on `ray start` asks for it, and `ray.init` alone would not show it.
    """
    try:
        from ray._private.authentication import authentication_token_setup as setup
    except ImportError:  # an older Ray, which has no tokens
        return
    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _no_cluster(address: str, reason: str) -> HellmError:
    return HellmError(
        f"no Ray cluster answers at {address!r} ({reason}); start one with `ray start --head`, or name none"
    )


def refuse_numbered(device: str) -> None:
    """Refuse a GPU by its number: on a cluster Ray gives each task its own, which is then number 0.

    Raises:
        SettingsError: it is one.
    """
    if ":" in device:
        raise SettingsError(
            f"--device {device}: on a Ray cluster the device is auto, cpu or cuda; Ray chooses which one"
        )


def request_resources(n_cpus: float, n_gpus: float) -> dict[str, float]:
    """What a task asks of the cluster: GPUs only where it has any.

    Raises:
        SettingsError: no cluster of this size could ever run it.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    most = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
    if n_cpus > most:
        raise SettingsError(f"ray_cpus is {n_cpus:g}, but the largest node of the Ray cluster has {most:g} CPUs")
    gpus = n_gpus if any(node.get("GPU", 0.0) > 0 for node in nodes) else 0.0
    return {"cpu": n_cpus, "gpu": gpus}


def enter_worker(folder: Path, n_cpus: float) -> None:
    """Make a worker's process like that of a command: folder, threads, allocator."""
    if folder.is_dir():  # on another machine it may be missing
        os.chdir(folder)
    runtime.keep_freed_memory()
    torch.set_num_threads(max(1, int(n_cpus)))
    # Arrays in Ray's shared memory are read-only, and nothing of ours writes to what it is handed.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
