"""Properties of the process that results record."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from hellm_recbole.errors import SettingsError
from hellm_recbole.system.runtime import choose_device, read_git_state

ROOT = Path(__file__).resolve().parents[2]


def test_the_commit_of_the_checkout_is_found() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert read_git_state()["git_commit"] == head
    assert read_git_state()["git_dirty"] in (True, False)


def test_a_device_that_does_not_exist_is_refused_with_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match=r"--device cuda:99: no such device here; use auto or cpu$"):
        choose_device("cuda:99")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match=r"no such device here; use auto, cpu, cuda:0 or cuda:1$"):
        choose_device("cuda:99")
