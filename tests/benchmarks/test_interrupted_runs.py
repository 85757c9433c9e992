"""run.py is interrupted, killed and started again, and two commands work on the same results."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.benchmarks import run
from hellm_recbole.experiments import run as experiment
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import read_result
from tests.benchmarks.run_toy import command, fail_with_sentence


def read_comparable_part(path: Path) -> dict[str, Any]:
    """Read a run result without times, memory and checksum."""
    record = json.loads(path.read_text())
    for key in ("train_seconds", "eval_seconds", "peak_memory_bytes", "sha256"):
        record.pop(key)
    for entry in record["curve"]:
        entry.pop("seconds")
    return dict(record)


def enable_ctrl_c() -> None:
    """Handle SIGINT as in a terminal. A shell starts background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_command(workplace: Path, model: str, epochs: int) -> subprocess.Popen[str]:
    script = Path(run.__file__)
    arguments = [
        "--models",
        model,
        "--dataset",
        "toy",
        "--set",
        f"epochs={epochs}",
        "--set",
        "batch_size=16",
        "--set",
        "patience=1000",
    ]
    return subprocess.Popen(
        [sys.executable, str(script), *arguments, "--threads", "1"],
        cwd=workplace,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=enable_ctrl_c,
    )


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str)
def test_an_interrupted_command_keeps_finished_runs(workplace: Path, sent: signal.Signals, code: int) -> None:
    process = start_command(workplace, "Pop,SASRec", 100_000)
    state = workplace / "results" / "toy" / "SASRec" / "2024" / "checkpoint" / "state.json"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "give the same command again to resume" in err
    results = workplace / "results" / "toy"
    assert read_result(results / "Pop" / "2024" / "record.json").status == "success"
    assert read_result(results / "SASRec" / "2024" / "record.json").status == "cancelled"


def test_a_second_command_names_the_first_and_can_read_finished_runs(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "Pop") == 0
    first = start_command(workplace, "SASRec", 100_000)
    state = workplace / "results" / "toy" / "SASRec" / "2024" / "checkpoint" / "state.json"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    for more in ((), ("--fresh",), ("--export", "test-lists")):
        sentence = fail_with_sentence(capsys, "--models", "Pop,SASRec", *more)
        assert f"SASRec on toy, seed 2024 is in use by process {first.pid} on " in sentence
    assert command("--models", "Pop") == 0
    first.kill()
    first.communicate()
    assert (workplace / "results" / "toy" / "SASRec" / ".2024.lock").exists()
    assert command("--models", "SASRec", "--fresh") == 0
    assert not list(workplace.rglob("*.lock"))


def kill_and_restart(workplace: Path, model: str, kills: int, epochs: int) -> None:
    """Kill and restart a run `kills` times at random moments. Compare it with a run without interruptions."""
    whole = start_command(workplace, model, epochs)
    assert whole.wait(timeout=600) == 0
    folder = workplace / "results" / "toy" / model / "2024"
    uninterrupted, ranks = read_comparable_part(folder / "record.json"), read_ranks(folder / "ranks.npz")
    (workplace / "results").rename(workplace / "whole")
    draw = random.Random(0)
    done = 0
    while done < kills:
        before = sorted(folder.glob("checkpoint/last-*"))
        process = start_command(workplace, model, epochs)
        deadline = time.monotonic() + 120
        while (
            sorted(folder.glob("checkpoint/last-*")) == before
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)  # until this process has written something of its own
        time.sleep(draw.uniform(0.0, 0.3))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        done += 1
    assert done == kills, "the run ended before it could be killed often enough; give it more epochs"
    assert start_command(workplace, model, epochs).wait(timeout=600) == 0
    assert read_comparable_part(folder / "record.json") == uninterrupted
    for phase, expected in ranks.items():
        assert np.array_equal(read_ranks(folder / "ranks.npz")[phase].rank, expected.rank)
    assert not [path for path in folder.rglob("*") if ".tmp." in path.name]
    assert len(list(folder.glob("checkpoint/*"))) == 3


@pytest.mark.slow
def test_two_kills(workplace: Path) -> None:
    kill_and_restart(workplace, "LightGCN", kills=2, epochs=150)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["LightGCN", "SASRec", "RecBole-BPR"])
def test_twenty_kills(workplace: Path, model: str) -> None:
    kill_and_restart(workplace, model, kills=20, epochs=600)


def test_temporary_files_of_killed_processes_and_old_tracebacks_are_removed(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    with monkeypatch.context() as patched:
        patched.setattr(experiment, "rank_targets", crash)
        assert command("--models", "LightGCN") == 1
    folder = workplace / "results" / "toy" / "LightGCN" / "2024"
    assert "ZeroDivisionError" in (folder / "traceback.txt").read_text()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (
        f".{gone.pid}.tmp.record.json",
        "checkpoint/last-00001.safetensors",
        f"../../.{gone.pid}.tmp.table.md",
    ):
        (folder / name).write_text("")
    (folder / f".embeddings.tmp-{gone.pid}").mkdir()
    (folder / ".model-abcd1234").mkdir()
    assert command("--models", "LightGCN") == 0
    left = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
    assert left == []
    assert not (folder / "traceback.txt").exists()
    assert len(list((folder / "checkpoint").iterdir())) == 3
    assert not [path for path in (workplace / "results" / "toy").iterdir() if ".tmp." in path.name]
