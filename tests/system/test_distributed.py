from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hellm_recbole.errors import SettingsError
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup, join_process_group

ROOT = Path(__file__).resolve().parents[2]
PROCESS = """
from pathlib import Path

import numpy as np
import torch
from hellm_recbole.system.distributed import join_process_group

torch.set_num_threads(3)
group = join_process_group()
assert torch.get_num_threads() == 3
assert torch.distributed.get_backend() == "gloo"
assert group.any(group.rank == 1)
assert not group.any(False)
assert group.add_up({"loss": 1.0 + group.rank} if group.rank else {}) == {"loss": 2.0}
array = np.array([1.0, float(group.rank)])
group.add_up_arrays([array])
assert array.tolist() == [2.0, 1.0]
used, unused, here = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
used.grad = torch.full((2,), 1.0 + group.rank)
here.grad = torch.ones(2) if group.rank else None
group.add_up_gradients([used, unused, here])
assert used.grad.tolist() == [3.0, 3.0]
assert unused.grad is None
assert here.grad.tolist() == [1.0, 1.0]
module = torch.nn.Linear(2, 1)
group.copy_from_first(module)
if group.rank:
    assert torch.equal(group.receive(), module.weight)
else:
    group.send(module.weight.detach())
group.wait()
import torch.distributed.nn  # transformers imports it once the group exists
group.leave()
threads = [comm.read_text() for comm in Path("/proc/self/task").glob("*/comm")]
assert not any("gloo" in name for name in threads), threads
"""


def start_process(rank: int, port: int) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    environment |= {name: str(value) for name, value in places.items()}
    environment |= {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROCESS], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_exchange_values(unused_port: int) -> None:
    processes = [start_process(rank, unused_port) for rank in (0, 1)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_process_without_a_launcher_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_process_group() is SINGLE_PROCESS
    assert SINGLE_PROCESS.share([1, 2, 3]) == [1, 2, 3]
    assert ProcessGroup(1, 2).share([1, 2, 3]) == [2]


def test_incomplete_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="announces several processes and RANK, LOCAL_RANK"):
        join_process_group()


def test_accelerate_is_not_imported_by_a_process_alone() -> None:
    code = (
        "import sys; from hellm_recbole.system.distributed import join_process_group as join; join(); "
        "assert 'accelerate' not in sys.modules"
    )
    environment = {key: value for key, value in os.environ.items() if key != "WORLD_SIZE"}
    subprocess.run([sys.executable, "-c", code], env=environment | {"PYTHONPATH": str(ROOT)}, check=True)
