"""An S3 server for tests: moto's, as a program of its own that forgets everything when it ends."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

VARIABLE = "HELLM_S3_PYTHON"  # a Python that has moto, if that of the tests has not
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}
START_S = 60.0


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        port: its port on this machine.
        process: its process.
    """

    port: int
    process: subprocess.Popen[bytes]

    def make_uri(self, bucket: str, folder: str = "runs") -> str:
        return f"s3://{bucket}/{folder}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def ask(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: bytes = answer.read()
            return content


@contextmanager
def start_s3_server(environment: Mapping[str, str] | None = None) -> Iterator[S3Server]:
    """Start a server with an empty bucket `tests`; skip the test if moto is not installed."""
    python = os.environ.get(VARIABLE, sys.executable)
    if python == sys.executable and importlib.util.find_spec("moto") is None:
        pytest.skip(f"moto[server] is not installed, and {VARIABLE} names no Python that has it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | dict(environment or {})
    process = subprocess.Popen(
        [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server, ends = S3Server(port, process), time.monotonic() + START_S
    try:
        while True:
            try:
                server.ask("tests", "PUT")
                break
            except OSError:
                if time.monotonic() > ends or process.poll() is not None:
                    raise
                time.sleep(0.2)
        yield server
    finally:
        process.kill()
        process.wait()
