"""Runs on two Ray nodes that share no folder, with an S3 server between them; one node is killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.experiments.results import read_result
from hellm_recbole.system.storage import Storage
from hellm_recbole.system.stored_folder import StoredFolder
from tests.s3_server import KEYS, S3Server

RUN = [sys.executable, "-W", "ignore", "-m", "hellm_recbole.benchmarks.run", "--dataset", "toy"]
LONG = ["--set", "epochs=250", "--set", "patience=250", "--set", "batch_size=64", "--threads", "1"]
MODELS = ["--models", "LightGCN,LightGCN-priors"]
WAIT_S = 180.0


def start_command(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start a command on a machine of its own: another home, another working folder."""
    variables = {**os.environ, "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*RUN, *MODELS, *LONG, *options],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_run_whose_node_is_killed_ends_on_another_node_as_a_local_run_does(workplace: Path, server: S3Server) -> None:
    from ray.cluster_utils import Cluster

    uri = server.make_uri("tests")
    for name in ("command", "local", "a", "b"):
        (workplace / name).mkdir()
    for name in ("command", "local"):
        shutil.copytree(workplace / "dataset", workplace / name / "dataset")
    local = start_command(workplace / "local", "--jobs", "1")
    output, _ = local.communicate()
    assert local.returncode == 0, output
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = {
            name: cluster.add_node(num_cpus=1, env_vars={"HOME": str(workplace / name), "OMP_NUM_THREADS": "1", **KEYS})
            for name in ("a", "b")
        }
        command = start_command(workplace / "command", "--ray", cluster.address, "--storage", uri)
        stored = StoredFolder(Storage(uri), "runs/toy/LightGCN/2024")
        killed = wait_for_checkpoint(stored, workplace, command)
        cluster.remove_node(nodes[killed], allow_graceful=False)
        stored.pull(workplace / "last" / "2024")
        output, _ = command.communicate(timeout=600)
        assert command.returncode == 0, output
    finally:
        cluster.shutdown()
    other = {"a": "b", "b": "a"}[killed]
    assert list((workplace / other).rglob("dataset.json")), "the other node has fetched the data"
    last = read_curve(workplace / "last" / "2024")
    curve = read_curve(workplace / "command" / "results" / "toy" / "LightGCN" / "2024")
    assert 1 <= len(last) < len(curve) == 250
    assert curve[: len(last)] == last, (
        "the run was resumed: even the times of these epochs are those of the killed node"
    )
    check_equal(workplace / "local" / "results" / "toy", workplace / "command" / "results" / "toy")


def wait_for_checkpoint(stored: StoredFolder, workplace: Path, command: subprocess.Popen[str]) -> str:
    """Wait until a checkpoint of a run in progress is in the storage. Return the name of the node that executes it."""
    ends = time.monotonic() + WAIT_S
    while time.monotonic() < ends:
        assert command.poll() is None, command.communicate()[0]
        manifest = stored.read_manifest()
        if manifest is not None and manifest.state["epoch"] >= 1:
            assert not manifest.state["finished"], "the run was too short"
            return next(name for name in ("a", "b") if list((workplace / name).rglob("checkpoint")))
        time.sleep(0.2)
    command.kill()
    raise AssertionError(f"no checkpoint in {WAIT_S} s: {command.communicate()[0]}")


def check_equal(local: Path, fetched: Path) -> None:
    """Check that two folders of results have the same files, and that their records differ only in times."""
    names = sorted(path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file())
    others = sorted(path.relative_to(fetched).as_posix() for path in fetched.rglob("*") if path.is_file())
    assert [name for name in names if "tfevents" not in name] == [name for name in others if "tfevents" not in name]
    for model in ("LightGCN", "LightGCN-priors"):
        one, two = local / model / "2024", fetched / model / "2024"
        assert (one / "ranks.npz").read_bytes() == (two / "ranks.npz").read_bytes()
        first, second = read_result(one / "record.json"), read_result(two / "record.json")
        assert first.status == second.status == "success"
        assert first.metrics == second.metrics
        assert (first.split_hash, first.ranks_sha256) == (second.split_hash, second.ranks_sha256)
        assert first.identity == second.identity
        assert [entry["losses"] for entry in read_curve(one)] == [entry["losses"] for entry in read_curve(two)]


def read_curve(run: Path) -> list[dict[str, Any]]:
    """Read the epochs of a run's checkpoint; a run that is not trained has none."""
    state = run / "checkpoint" / "state.json"
    curve: list[dict[str, Any]] = json.loads(state.read_text())["progress"]["curve"] if state.exists() else []
    return curve
