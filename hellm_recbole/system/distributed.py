"""Process group for distributed training: several processes train one model, each on its own GPU.

`accelerate launch` or `torchrun` starts the processes. The first process (rank 0) leads: it writes all results and
trains every model that does not support distributed training. The other processes wait until rank 0 sends them a run.
All processes draw the same batches. A batch is cut into parts, each process computes some of them, and the gradients
are added up. So every process takes the same step that a single process would take with all parts.

accelerate's `PartialState` joins the processes. The operations on tensors use torch.distributed itself: accelerate's
`reduce` copies all gradients, and its barrier keeps the GPUs of waiting processes busy.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hellm_recbole.errors import SettingsError

PATIENCE = timedelta(days=30)  # the other processes wait while rank 0 trains models alone
_RENDEZVOUS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

Part = TypeVar("Part")


@dataclass(frozen=True)
class ProcessGroup:
    """This process as a member of a group of processes that train one model together.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes in the group.
    """

    rank: int = 0
    size: int = 1

    def share(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return the parts of the work that this process does."""
        return parts[self.rank :: self.size]

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def add_up(self, terms: dict[str, float]) -> dict[str, float]:
        """Return the sum of each term over all processes; a process without work passes an empty dict."""
        if self.size == 1:
            return terms
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, terms)
        sums: dict[str, float] = {}
        for received in gathered:
            for name, value in received.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def add_up_arrays(self, arrays: Iterable[np.ndarray]) -> None:
        """Replace arrays by their sums over all processes, in place; shapes are the same in every process."""
        if self.size > 1:
            for array in arrays:
                dist.all_reduce(torch.from_numpy(array))

    def add_up_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes, in place.

        A parameter that has a gradient in no process still has none afterwards.
        """
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        has_gradient = torch.tensor([int(parameter.grad is not None) for parameter in trained])
        dist.all_reduce(has_gradient, dist.ReduceOp.MAX)
        trained = [parameter for parameter, used in zip(trained, has_gradient.tolist(), strict=True) if used]
        if not trained:
            return
        gradients = torch.cat([_get_gradient(parameter).flatten() for parameter in trained])
        dist.all_reduce(gradients)
        for parameter, part in zip(trained, gradients.split([parameter.numel() for parameter in trained]), strict=True):
            parameter.grad = part.view_as(parameter)

    def copy_from_first(self, module: nn.Module) -> None:
        """Copy all parameters and buffers of rank 0 to the other processes."""
        if self.size > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                values = tensor.detach().contiguous()
                dist.broadcast(values, src=0)
                tensor.detach().copy_(values)

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        self.any(False)

    def send(self, message: Any) -> None:
        """Send a Python object from rank 0 to all other processes; they call `receive`."""
        if self.size > 1:
            dist.broadcast_object_list([message], src=0, device=torch.device("cpu"))

    def receive(self) -> Any:
        """Wait for the object that rank 0 sends, and return it."""
        received: list[Any] = [None]
        dist.broadcast_object_list(received, src=0, device=torch.device("cpu"))
        return received[0]

    def leave(self) -> None:
        """Close the process group; no process may wait for another one any more."""
        if self.size > 1:
            dist.destroy_process_group()


SINGLE_PROCESS = ProcessGroup()


def join_process_group() -> ProcessGroup:
    """Join the process group that a launcher has announced in the environment, or return a group of this process alone.

    A process that joins selects the GPU of its local rank.

    Raises:
        SettingsError: the launcher's variables are incomplete, or the machine has fewer GPUs than processes.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return SINGLE_PROCESS
    missing = [name for name in _RENDEZVOUS if name not in os.environ]
    if missing or not size.isdecimal():
        raise SettingsError(
            f"WORLD_SIZE={size} in the environment announces several processes and {', '.join(missing) or 'it'} is "
            "missing or not valid; start with `accelerate launch` or `torchrun`, or unset WORLD_SIZE"
        )
    local_rank = int(os.environ["LOCAL_RANK"])
    n_gpus = torch.cuda.device_count()
    if n_gpus and local_rank >= n_gpus:
        raise SettingsError(
            f"no GPU is left for process {local_rank} of this machine, which has {n_gpus}; start fewer processes"
        )
    from accelerate import PartialState  # here, because a process alone does not need it

    # The functions of this module have the group that exists at import as a default argument. Imported later, they
    # would keep the group alive after `leave`, and the threads of a live group can abort the process at its end.
    importlib.import_module("torch.distributed.nn.functional")

    n_threads = torch.get_num_threads()
    try:
        state = PartialState(cpu=not n_gpus, backend="cpu:gloo,cuda:nccl" if n_gpus else "gloo", timeout=PATIENCE)
    except NotImplementedError as error:  # GPUs that cannot exchange data directly
        raise SettingsError(" ".join(str(error).split())) from error
    torch.set_num_threads(n_threads)  # PartialState changes the number, and with it the numbers of a run
    return ProcessGroup(state.process_index, state.num_processes)


def refuse_process_group(command: str) -> None:
    """Refuse to run as one of several processes of a launcher.

    Args:
        command: name of the command, for the message.

    Raises:
        SettingsError: a launcher has started this process in a process group.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise SettingsError(f"{command} starts processes of its own; run it without `accelerate launch` or `torchrun`")


def _get_gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter; zeros of its shape if it has none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
