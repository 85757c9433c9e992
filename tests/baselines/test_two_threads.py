"""Two processes that train the same model with two threads on MovieLens-100K have results that are equal bit for bit.

The tensors of this dataset are so large that torch divides them among its threads; those of the toy dataset are not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hellm_recbole.data.prepare import prepare_if_known
from tests.baselines.train_all import NAMES

ROOT = Path(__file__).resolve().parents[2]
N_THREADS = 2
TIMEOUT_S = 1200

Digests = dict[str, dict[str, str]]


def count_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Digests, Digests]:
    """Train all models in two processes at the same time; they compete for the CPU cores at random."""
    if count_cpus() < N_THREADS:
        pytest.skip("only one CPU: two threads never run at the same time here")
    dataset = prepare_if_known("ml-100k", data_path=None, dataset_root=tmp_path_factory.mktemp("dataset")).folder
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(N_THREADS))}
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-m", "tests.baselines.train_all"),
                *(str(dataset), str(tmp_path_factory.mktemp("run")), str(N_THREADS)),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    one, other = (json.loads(output.splitlines()[-1]) for output in outputs)
    return one, other


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_runs_with_two_threads_are_equal_to_the_last_bit(name: str, two_runs: tuple[Digests, Digests]) -> None:
    one, other = two_runs
    assert "ranks" in one[name]
    assert len(one[name]) > 1
    assert one[name] == other[name]
