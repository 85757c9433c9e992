"""Properties of the process that results record."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from hellm_recbole.errors import SettingsError
from hellm_recbole.system.runtime import choose_device, list_devices, measure_peak_memory, read_git_state

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


def test_auto_takes_cuda_then_the_gpu_of_a_mac_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=cuda: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=mps: found)
        assert choose_device("auto").type == expected


def test_the_gpu_of_a_mac_is_listed_and_refused_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match=r"--device mps: no such device here; use auto or cpu$"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert list_devices() == ["cpu", "mps"]


def test_the_peak_of_the_memory_is_measured_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    with_proc = measure_peak_memory(torch.device("cpu"))
    monkeypatch.setattr(Path, "exists", lambda path: False)
    without = measure_peak_memory(torch.device("cpu"))
    assert with_proc["device"] is without["device"] is None
    assert without["host"] == pytest.approx(with_proc["host"], rel=0.5)
    assert without["host"] > 10**7  # type: ignore[operator]
