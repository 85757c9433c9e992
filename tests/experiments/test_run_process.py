"""Runs side by side in real processes: same numbers, and what a failure, a kill and a stop leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks import run
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.experiments.results import RunResult, read_result
from tests.toy import write_prepared

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--dataset", "toy", "--set", "epochs=3", "--set", "batch_size=64"]
LONG = ["--set", "epochs=100000", "--set", "patience=100000"]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset) -> Path:
    """The working folder, with the toy dataset prepared in it."""
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    return tmp_path


def read(output: str, model: str, seed: int = 2024) -> RunResult:
    return read_result(Path(output, "toy", model, str(seed), "record.json"))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_a_failure_stops_no_other_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The loss of BPR is no number; Pop waits for no other, and has the numbers that it has alone."""
    options = ["--models", "BPR,Pop", *SMALL, "--set", "BPR.learning_rate=1e30"]
    assert run.main([*options, "--threads", "2", "--output", "beside"]) == 1
    said = capsys.readouterr()
    assert "2 side by side with 1 thread each" in said.out
    assert "2 of 2 runs finished (1 failed)" in said.err
    assert [line for line in said.err.splitlines() if line.startswith("error: BPR on toy, seed 2024: ")] != []
    assert run.main([*options, "--threads", "1", "--output", "alone"]) == 1
    assert read("beside", "Pop").metrics == read("alone", "Pop").metrics
    assert read("beside", "BPR").reason == read("alone", "BPR").reason


@pytest.mark.slow
def test_runs_side_by_side_equal_those_one_after_another(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fusion reads two rows."""
    models = ["LightGCN", "VBPR", "Fusion(LightGCN,VBPR)", "Pop", "SASRec"]
    options = ["--models", ",".join(models), *SMALL, "--threads", "2"]
    torch_threads = ["--jobs", "1", "--threads", "1", "--output", "alone"]
    assert run.main([*options, "--output", "beside"]) == 0
    assert run.main([*options, *torch_threads]) == 0
    for model in models:
        beside, alone = read("beside", model), read("alone", model)
        assert beside.metrics == alone.metrics
        assert (beside.threads, alone.threads) == (1, 1)
        assert beside.costs is not None
        assert alone.costs is not None
        assert (beside.costs["jobs"], alone.costs["jobs"]) == (2, 1)
        found, expected = (
            read_arrays(Path(folder, "toy", model, "2024", "ranks.npz")) for folder in ("beside", "alone")
        )
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    order = [Path(folder, "toy", "table.csv").read_text().splitlines() for folder in ("beside", "alone")]
    assert [line.split(",")[1] for line in order[0]] == [line.split(",")[1] for line in order[1]]
    capsys.readouterr()
    assert run.main(["--models", "LightGCN,VBPR,Pop", *SMALL, "--threads", "2", "--output", "beside"]) == 0
    assert "runs finished" not in capsys.readouterr().err  # all are kept, so nothing is started


def start(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hellm_recbole.benchmarks.run", "--dataset", "toy", "--threads", "2", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for(*models: str) -> None:
    """Wait until runs have written a checkpoint."""
    deadline = time.monotonic() + 240
    while not all(Path("results", "toy", model, "2024", "checkpoint", "state.json").exists() for model in models):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def count_epochs() -> int:
    """Count the epochs in the checkpoint of LightGCN."""
    state = json.loads(Path("results/toy/LightGCN/2024/checkpoint/state.json").read_text())
    epochs: int = state["progress"]["epoch"]
    return epochs


def list_processes(folder: Path) -> list[int]:
    """List the processes other than this one that work in a folder."""
    found = []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            if pid != os.getpid() and os.readlink(f"/proc/{pid}/cwd") == str(folder):
                found.append(pid)
        except OSError:  # it has just ended
            continue
    return found


def find_workers(folder: Path) -> list[int]:
    """List the processes of runs: those whose parent is the server that has forked them."""
    parents = {
        pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in list_processes(folder)
    }
    return [pid for pid, parent in parents.items() if parents.get(parent) in parents]


def wait_for_end(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while list_processes(folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_killed_process_is_reported_and_the_same_command_resumes(workplace: Path) -> None:
    options = ["--models", "LightGCN,SASRec", "--set", "batch_size=64"]
    with start(*options, "--set", "epochs=100000", "--set", "patience=100000", "--set", "SASRec.patience=3") as process:
        wait_for("LightGCN")
        workers = find_workers(workplace)
        assert 1 <= len(workers) <= 2
        while read_pids := find_workers(workplace):
            if len(read_pids) == 1 and Path("results/toy/SASRec/2024/record.json").exists():
                os.kill(read_pids[0], signal.SIGKILL)
                break
            time.sleep(0.1)
        _, said = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "error: LightGCN on toy, seed 2024: its process was ended by signal 9" in said
    assert "Traceback" not in said
    assert read("results", "SASRec").status == "success"
    lost = read("results", "LightGCN")
    assert (lost.status, "resumes" in (lost.reason or "")) == ("failed", True)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_all_processes_end_with_the_command_and_it_resumes(workplace: Path, sent: signal.Signals) -> None:
    with start("--models", "LightGCN,SASRec", *LONG, "--set", "batch_size=64") as process:
        wait_for("LightGCN", "SASRec")
        for pid in [process.pid, *(find_workers(workplace) if sent == signal.SIGINT else [])]:  # as a terminal does
            os.kill(pid, sent)
        _, said = process.communicate(timeout=120)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[sent]
    assert ("stopped: finished work is kept" in said) == (sent != signal.SIGKILL)
    assert "Traceback" not in said
    wait_for_end(workplace)
    if sent != signal.SIGKILL:
        assert [read("results", model).status for model in ("LightGCN", "SASRec")] == ["cancelled"] * 2
    before = count_epochs()
    with start("--models", "LightGCN,SASRec", *LONG, "--set", "batch_size=64") as process:
        deadline = time.monotonic() + 120
        while count_epochs() == before and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert count_epochs() > before
    wait_for_end(workplace)
