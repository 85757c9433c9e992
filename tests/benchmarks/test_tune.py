"""Searches, studies and runs on a real local Ray cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import run, study, tune
from hellm_recbole.experiments.results import read_result
from hellm_recbole.experiments.sweeps import read_search
from hellm_recbole.system.files import DIGEST_MISMATCH, write_sums
from hellm_recbole.system.locks import FolderLock

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--dataset", "toy", "--threads", "1", "--set", "epochs=9", "--set", "eval_every=1", "--set", "batch_size=64"]


def test_a_search_and_then_a_run_with_the_best_values(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = ["--space", "learning_rate=[1.0e-5, 1.0e-6]", "--only", "learning_rate"]
    assert tune.main(["--models", "LightGCN", *SMALL, "--budget", "trials=3", *space]) == 0
    captured = capsys.readouterr()
    folder = workplace / "results" / "toy"
    sweep = read_search(folder / "sweeps" / "LightGCN" / "tune" / "sweep.json")
    assert sweep.trials[0]["values"]["learning_rate"] == 5e-3  # the first trial has the values of the settings files
    assert [trial["status"] for trial in sweep.trials] == ["ended", "pruned", "pruned"]
    assert [trial["epochs"] for trial in sweep.trials] == [9, 4, 4]  # stopped at the first rung
    assert sweep.best["number"] == 1
    assert "pruned" in captured.out
    assert re.search(r"trial 2/3 .* stopped after epoch 4", captured.err)
    assert not (folder / "sweeps" / "LightGCN" / "tune" / "ray").exists()

    assert run.main(["--models", "LightGCN,Pop", *SMALL, "--tuned"]) == 0
    record = read_result(folder / "LightGCN-tuned" / "2024" / "record.json")
    assert record.search is not None
    assert record.search["budget"] == "trials=3"
    assert record.settings["learning_rate"]["origin"] == "results/toy/tuned/LightGCN.yaml"
    assert record.metrics["valid"]["N@20"] == pytest.approx(sweep.best["valid"]["N@20"], abs=1e-12)
    assert "trials=3" in (folder / "table.md").read_text()
    assert (folder / "Pop" / "2024" / "record.json").exists()

    assert tune.main(["--models", "LightGCN", *SMALL, "--budget", "trials=4", *space]) == 2
    assert "a search with budget = trials=3, but this command has budget = trials=4" in capsys.readouterr().err


@pytest.mark.slow
def test_a_point_that_diverges_does_not_end_the_search(workplace: Path) -> None:
    space = ["--space", "learning_rate=[1.0e+30]", "--space", "n_layers=[]", "--space", "l2_weight=[]"]
    assert tune.main(["--models", "LightGCN", *SMALL, "--set", "epochs=2", "--budget", "trials=2", *space]) == 0
    trials = read_search(workplace / "results" / "toy" / "sweeps" / "LightGCN" / "tune" / "sweep.json").trials
    assert [trial["status"] for trial in trials] == ["ended", "failed"]
    assert trials[1]["reason"] is not None
    assert "lower learning_rate" in trials[1]["reason"]


@pytest.mark.slow
def test_a_killed_search_is_resumed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--models", "LightGCN", *SMALL, "--set", "epochs=40", "--set", "patience=40", "--budget", "trials=3"]
    command = [sys.executable, "-W", "ignore", "-m", "hellm_recbole.benchmarks.tune", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "ended after" in line or "stopped after" in line:  # the first of the three trials has ended
                break
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGKILL)
    ray_folder = workplace / "results" / "toy" / "sweeps" / "LightGCN" / "tune" / "ray"
    assert ray_folder.is_dir()
    first = len(list(ray_folder.glob("*_trial_*")))
    assert first >= 1
    state = ray_folder.parent / "state" / "tuner.pkl"
    kept = state.read_bytes()
    state.write_bytes(b"chellm_recbole.gone\nGone\n.")  # a class that this version lacks
    assert tune.main(options) == 2
    assert f"{DIGEST_MISMATCH}; start the search from scratch with --fresh" in capsys.readouterr().err
    write_sums(state.parent)
    assert tune.main([*options, "--resume"]) == 2
    said = capsys.readouterr().err
    assert "another version wrote it" in said
    assert "Traceback" not in said
    state.write_bytes(kept)
    write_sums(state.parent)
    for path in ray_folder.glob("*-state-*.json"):  # Ray was writing them when it was killed
        path.write_bytes(path.read_bytes()[:100])
    assert tune.main(options) == 0
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "trial 1/3" not in said  # trials that had ended are not run again
    trials = read_search(ray_folder.parent / "sweep.json").trials
    assert [trial["number"] for trial in trials] == [1, 2, 3]
    assert trials[0]["status"] == "ended"
    assert sorted(path.name for path in ray_folder.parent.iterdir()) == ["request.json", "sweep.json", "trackers"]
    (ray_folder / "_trial").mkdir(parents=True)  # the search was killed after its end, before its files were removed
    (ray_folder.parent.parent / ".tune.lock").touch()
    assert tune.main([*options, "--resume"]) == 0
    assert [path.name for path in ray_folder.parent.parent.iterdir()] == ["tune"]
    assert sorted(path.name for path in ray_folder.parent.iterdir()) == ["request.json", "sweep.json", "trackers"]


def test_two_commands_cannot_run_the_same_search_at_once(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("results/toy/sweeps/LightGCN/tune")
    with FolderLock(folder, "another"):
        assert tune.main(["--models", "LightGCN", *SMALL, "--budget", "trials=1", "--fresh"]) == 2
    err = capsys.readouterr().err
    assert f"error: search tune of LightGCN on toy is in use by process {os.getpid()} on " in err
    assert not folder.exists()


@pytest.mark.slow
def test_a_study_is_run_once_and_drawn_again(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--studies", "width", *SMALL, "--set", "epochs=1"]
    assert study.main(options) == 0
    figures = workplace / "results" / "toy" / "figures"
    drawn = {path.name: path.read_bytes() for path in figures.iterdir()}
    assert set(drawn) == {"HeLLMPre-study-width.png", "HeLLMPre-study-width.svg"}
    path = workplace / "results" / "toy" / "sweeps" / "HeLLMPre" / "study-width" / "sweep.json"
    sweep, written = read_search(path), path.read_bytes()
    assert [trial["values"]["emb_dim"] for trial in sweep.trials] == [16, 32, 64, 128, 256, 512]
    (figures / "HeLLMPre-study-width.svg").unlink()
    assert study.main(options) == 0
    assert path.read_bytes() == written  # with the seconds that each point took
    assert {path.name: path.read_bytes() for path in figures.iterdir()} == drawn
    assert "written to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--budget", "20"], "--budget '20' is not understood"),
        (["--resume", "--fresh"], "--resume and --fresh contradict each other"),
        (["--space", "NoModel.x=[1]"], "NoModel is not among the models of this search"),
        (["--threads", "99999999999"], "--threads 99999999999 must be"),
        (["--budget", "minutes=0"], "--budget 'minutes=0'"),
        (["--space", "n_layers=3"], "--space n_layers=3 is not understood"),
        (["--space", "n_layer=[3]"], "no setting 'n_layer'"),
        (["--space", "n_layers=[-1]"], "must be >= 0"),
        (["--search", "grid", "--budget", "trials=3"], "has 80 points and the budget is trials=3"),
        (["--address", "127.0.0.1:1"], "no Ray cluster answers at '127.0.0.1:1'"),
        (["--name", "../../..", "--fresh"], "--name '../../..' is not usable as a file name"),
        (["--name", "", "--fresh"], "--name '' is not usable as a file name"),
        (["--device", "cuda:1"], "the device must be auto, cpu or cuda"),
        (["--only", "n_layers,n_layer"], "--only names n_layer"),
        (["--set", "ray_cpus=512"], "the largest node of the Ray cluster has 1 CPUs"),
    ],
)
def test_bad_arguments(workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str) -> None:
    kept = workplace / "results" / "toy" / "sweeps" / "LightGCN" / "tune" / "sweep.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    assert tune.main(["--models", "LightGCN", *SMALL, *arguments]) == 2
    assert kept.exists()
    err = capsys.readouterr().err
    assert part in err
    assert err.count("error: ") == 1
    assert "Traceback" not in err


def test_tuned_without_a_search(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--models", "VBPR", *SMALL, "--tuned"]) == 2
    assert "hellm-recbole tune --models VBPR --dataset toy" in capsys.readouterr().err


def list_processes(folder: Path) -> list[int]:
    """List the processes other than this one that work in a folder."""
    pids = filter(str.isdecimal, os.listdir("/proc"))
    return [pid for pid in map(int, pids) if pid != os.getpid() and str(folder).encode() in read_environment(pid)]


@pytest.mark.parametrize(
    ("command", "sent"), [pytest.param("run", signal.SIGHUP, marks=pytest.mark.slow), ("tune", signal.SIGKILL)], ids=str
)
def test_ray_ends_with_the_command_however_it_ends(workplace: Path, command: str, sent: signal.Signals) -> None:
    options = ["--models", "LightGCN", *SMALL, "--set", "epochs=100000", "--set", "patience=100000"]
    options += ["--ray"] if command == "run" else ["--budget", "trials=1"]
    command_line = [sys.executable, "-W", "ignore", "-m", f"hellm_recbole.benchmarks.{command}", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command_line, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not any(workplace.rglob("state.json")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.1)
        assert len(list_processes(workplace)) > 3  # the command, and Ray's
        process.send_signal(sent)
        _, said = process.communicate(timeout=120)
    assert process.returncode == (129 if sent == signal.SIGHUP else -sent)
    assert ("stopped: finished work is kept" in said) == (sent == signal.SIGHUP)
    deadline = time.monotonic() + 120
    while list_processes(workplace) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [read_command_line(pid) for pid in list_processes(workplace)] == []


@pytest.mark.slow
def test_parallel_runs_with_a_killed_worker(workplace: Path) -> None:
    """A run whose worker dies is resumed and ends with the same numbers as an undisturbed run."""
    options = ["--models", "Pop,LightGCN", *SMALL, "--seeds", "1,2"]
    long = ["--set", "epochs=80", "--set", "patience=80"]
    command = [sys.executable, "-W", "ignore", "-m", "hellm_recbole.benchmarks.run", *options, *long, "--ray"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_CURRENT_TEST": ""}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        state = workplace / "results" / "toy" / "LightGCN" / "1" / "checkpoint" / "state.json"
        while not state.exists():
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.05)
        killed = [
            pid
            for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))
            if b"ray::LightGCN" in read_command_line(pid) and str(workplace).encode() in read_environment(pid)
        ]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    assert killed
    assert "4 of 4 runs finished (0 failed)" in said
    assert run.main([*options, *long, "--output", "alone"]) == 0
    for model in ("Pop", "LightGCN"):
        for seed in (1, 2):
            parallel, alone = (
                read_result(workplace / output / "toy" / model / str(seed) / "record.json")
                for output in ("results", "alone")
            )
            assert parallel.metrics == alone.metrics
    assert json.loads(state.read_text())["progress"]["stopped"]


def read_command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def read_environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes() + os.readlink(f"/proc/{pid}/cwd").encode()
    except OSError:
        return b""
