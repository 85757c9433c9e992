"""Measure in a process of its own, so that each measurement has its own peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from hellm_recbole.errors import HellmError


def run_apart(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """What `python -m module arguments` prints as JSON in its last line.

    Raises:
        HellmError: it failed; the message is its own last line.
    """
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise HellmError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
