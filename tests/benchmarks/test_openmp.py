"""Commands set the environment variables of OpenMP before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hellm_recbole.system.openmp import SPINS

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {  # command -> arguments that it accepts, so that it goes on to import torch
    **dict.fromkeys(("ablate", "audit", "gpu", "report", "run", "scale", "speed", "study", "tune"), ""),
    "prepare": "toy",
    "publish": "--dataset=toy",
    "reproduce": "table1",
    "upstream/parity": "--mmrec=.",
    "recommend": "results/toy/SASRec/2024 --histories histories.csv",
    "train_all": "results/toy/SASRec/2024",
    "push": "results/toy/SASRec/2024 --to ada/sasrec",
    "sensitivity": "--models=Pop",
    "score": "lists.csv --dataset=toy",
    "sampled_ranking": "--dataset=toy --candidates=uniform:5",
    "native_tasks": "--dataset=toy",
    "env": "",
}
# Runs a command until it imports torch, and prints the environment variable at that moment.
WATCH = """
import importlib.abc, os, runpy, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Finder())
sys.path.insert(0, os.path.dirname(sys.argv[1]))
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def read_spins(command: str, **more: str) -> str:
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command_line = [sys.executable, "-c", WATCH, str(ROOT / "benchmarks" / f"{command}.py")]
    command_line += COMMANDS[command].split()
    env = {**plain, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(command_line, env=env, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_sets_the_variable_before_torch_is_loaded(command: str) -> None:
    assert read_spins(command) == SPINS


def test_variables_of_the_user_are_not_changed() -> None:
    assert read_spins("run", GOMP_SPINCOUNT="7") == "7"
    assert read_spins("run", OMP_WAIT_POLICY="active") == "None"


def test_no_command_is_missing() -> None:
    folder = ROOT / "benchmarks"
    scripts = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.py")}
    scripts = {name for name in scripts if "__main__" in (folder / f"{name}.py").read_text()}
    assert scripts - {"upstream/mmrec_timings", "cli", "explain", "install_recbole"} == {*COMMANDS}
