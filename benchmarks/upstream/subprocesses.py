"""Run a measurement in its own process, so that each measurement has its own peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from hellm_recbole.errors import HellmError


def run_in_subprocess(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run `python -m module arguments` and return the JSON object in its last line of output.

    Raises:
        HellmError: the process failed; the message is its last line of stderr.
    """
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise HellmError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured
