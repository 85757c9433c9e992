"""Train a row with two processes on one device, and with one, on the same batches.

gloo joins the processes, as it can when both have the same GPU; NCCL cannot. Commands refuse more processes than GPUs
(`system.distributed`), so this joins a group of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist

from hellm_recbole.benchmarks.tasks.gpu_bench import SEED, Bench, Request
from hellm_recbole.benchmarks.tasks.gpu_measure import train_steps
from hellm_recbole.errors import HellmError
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.training.learner import Learner
from hellm_recbole.training.timing import time_epoch

N_PROCESSES = 2


@dataclass(frozen=True)
class Share:
    """What a process has measured.

    Attributes:
        loss: loss of the first steps, from the same initial weights for any number of processes.
        step_ms: milliseconds of a step.
        difference: largest absolute difference of its trained weights from those of the first process.
    """

    loss: float
    step_ms: float
    difference: float


def train_in_two_processes(bench: Bench, row: str) -> tuple[Share, Share, float]:
    """Train a row with one process, then with two.

    Args:
        bench: data and device.
        row: row with a language model.

    Returns:
        What one process has measured, what the first of two has, and the largest difference of the weights of the two.

    Raises:
        HellmError: one of the two processes failed.
    """
    alone = train_share(bench, row, SINGLE_PROCESS)
    folder = Path(tempfile.mkdtemp(prefix="gpu-processes-"))
    context = multiprocessing.get_context("spawn")
    text = bench.request.model_dump_json()
    processes = [
        context.Process(target=_train_as_member, args=(text, row, rank, str(folder)), daemon=True)
        for rank in range(N_PROCESSES)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        codes = [process.exitcode for process in processes]
        if any(codes):
            raise HellmError(f"two processes on one device ended with the exit codes {codes}; see the log")
        shares = [Share(**json.loads((folder / f"{rank}.json").read_text())) for rank in range(N_PROCESSES)]
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return alone, shares[0], max(share.difference for share in shares)


def train_share(bench: Bench, row: str, group: ProcessGroup) -> Share:
    """Train the first steps of a row as a member of a group, without dropout, which each process draws for itself."""
    config = bench.find_config(row)
    dropouts = {name: 0.0 for name in type(config.model_settings).model_fields if name.endswith("dropout")}
    config = replace(config, model_settings=config.model_settings.model_copy(update=dropouts))
    learner = config.build_learner(bench.make_data(config), SEED, bench.device, group)
    first = train_steps(learner, bench.request.steps, seed=1)
    epoch_s, n_steps = time_epoch(learner, bench.request.steps)
    return Share(first.loss, 1000 * epoch_s / n_steps, _compare_weights(learner, group))


def _compare_weights(learner: Learner, group: ProcessGroup) -> float:
    """Compute the largest difference of the trained weights from those of the first process."""
    if group.size == 1:
        return 0.0
    trained = [value.detach().flatten() for value in learner.module.parameters() if value.requires_grad]
    own = torch.cat(trained).cpu()
    first = own.clone()
    dist.broadcast(first, src=0)
    return float((own - first).abs().max())


def _train_as_member(text: str, row: str, rank: int, folder: str) -> None:
    """Train in a process of its own, and write what it has measured into a file of the folder."""
    if sys.platform.startswith("linux"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the name of the machine may have no address
    rendezvous = (Path(folder) / "rendezvous").as_uri()
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=N_PROCESSES)
    share = train_share(Bench(Request.model_validate_json(text)), row, ProcessGroup(rank, N_PROCESSES))
    (Path(folder) / f"{rank}.json").write_text(json.dumps(asdict(share)), encoding="utf-8")
    dist.destroy_process_group()
