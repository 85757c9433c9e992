"""What only Unix has is hidden from our code; every module still imports, and a model is trained and ranked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hellm_recbole.data.dataset import Dataset
from tests.toy import write_prepared

ROOT = Path(__file__).resolve().parents[1]
# The packages of others are loaded first, as they are on this system. What Windows lacks is then hidden from our own
# code: modules of the standard library, signals, functions of `os`, and the name of the platform.
SCRIPT = r"""
import json, os, pkgutil, signal, sys, types
import accelerate, colorlog, matplotlib.pyplot, pandas, peft, plotly, pyarrow.parquet, ray.tune, requests, scipy.sparse
import sentence_transformers, thop, threadpoolctl, torch, torch.utils.tensorboard, transformers, typer

for name in ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
for name in ("ITIMER_REAL", "SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "getitimer", "setitimer"):
    delattr(signal, name)
for name in ("O_CLOEXEC", "fork", "getloadavg", "getuid", "sched_getaffinity", "statvfs", "sysconf", "uname"):
    delattr(os, name)
threadpoolctl.sys = types.SimpleNamespace(**vars(sys))  # it asks for the platform at each call; ours is hidden from it
sys.platform = "win32"

import hellm_recbole
from hellm_recbole.benchmarks.cli import main

names = [module.name for module in pkgutil.walk_packages(hellm_recbole.__path__, "hellm_recbole.")]
for name in names:
    __import__(name)
model = ["--models", "LightGCN", "--preset", "quick", "--set", "epochs=1", "--device", "auto"]
print(json.dumps([len(names), main(["run", "--dataset", "toy", *model])]))
"""


def test_every_module_imports_and_a_row_runs_without_what_only_unix_has(tmp_path: Path, toy_dataset: Dataset) -> None:
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    n_modules, code = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert n_modules > 200
    assert "has no locks" in done.stderr, "neither fcntl nor msvcrt is there"
    record = json.loads(
        (tmp_path / "results" / "toy" / "LightGCN" / "2024" / "record.json").read_text(encoding="utf-8")
    )
    assert record["status"] == "success"
    assert record["peak_memory_bytes"]["host"] > 10**7
