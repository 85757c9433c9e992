"""Properties of the process that results record."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hellm_recbole.system.runtime import read_git_state

ROOT = Path(__file__).resolve().parents[2]


def test_the_commit_of_the_checkout_is_found() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert read_git_state()["git_commit"] == head
    assert read_git_state()["git_dirty"] in (True, False)
