"""Processes that train one row together, one for each GPU, as `accelerate launch` or `torchrun` starts them.

The first process leads: it trains all rows that are not shared and writes everything. The others wait until it sends
them a row. All draw the same batches; a batch is cut into parts, each process reads some of them, and the gradients are
added up, so that every process takes the step that one process would have taken with all parts.
"""

from __future__ import annotations

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

PATIENCE = timedelta(days=30)  # the others wait while the first trains rows alone
_MEETING = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

Part = TypeVar("Part")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train a row together.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Those of the parts that this process does."""
        return parts[self.rank :: self.size]

    def any(self, flag: bool) -> bool:
        """Whether the flag is up anywhere."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def add_up(self, terms: dict[str, float]) -> dict[str, float]:
        """Sums over all processes; one that did nothing has no terms."""
        if self.size == 1:
            return terms
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, terms)
        sums: dict[str, float] = {}
        for own in found:
            for name, value in own.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def add_up_arrays(self, arrays: Iterable[np.ndarray]) -> None:
        """The same for arrays of one shape everywhere, in place."""
        if self.size > 1:
            for array in arrays:
                dist.all_reduce(torch.from_numpy(array))

    def add_up_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """The same for gradients, in place; a parameter that has none anywhere still has none."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        there = torch.tensor([int(parameter.grad is not None) for parameter in trained])
        dist.all_reduce(there, dist.ReduceOp.MAX)
        trained = [parameter for parameter, some in zip(trained, there.tolist(), strict=True) if some]
        if not trained:
            return
        flat = torch.cat([_gradient(parameter).flatten() for parameter in trained])
        dist.all_reduce(flat)
        for parameter, part in zip(trained, flat.split([parameter.numel() for parameter in trained]), strict=True):
            parameter.grad = part.view_as(parameter)

    def make_equal(self, module: nn.Module) -> None:
        """Give all the parameters and buffers of the first process."""
        if self.size > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                own = tensor.detach().contiguous()
                dist.broadcast(own, src=0)
                tensor.detach().copy_(own)

    def wait(self) -> None:
        """Until all are here."""
        self.any(False)

    def send(self, what: Any) -> None:
        """Hand something to all others."""
        if self.size > 1:
            dist.broadcast_object_list([what], src=0, device=torch.device("cpu"))

    def receive(self) -> Any:
        """What the first process sends."""
        found: list[Any] = [None]
        dist.broadcast_object_list(found, src=0, device=torch.device("cpu"))
        return found[0]

    def leave(self) -> None:
        """At the end, when nobody waits for anything."""
        if self.size > 1:
            dist.destroy_process_group()


SINGLE_PROCESS = ProcessGroup()


def join_process_group() -> ProcessGroup:
    """The team that the launcher of this process has made, or this process alone; takes the GPU of that place.

    Raises:
        SettingsError: a launcher has announced others and not said where to meet them, or there are too few GPUs.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return SINGLE_PROCESS
    missing = [name for name in _MEETING if name not in os.environ]
    if missing or not size.isdecimal():
        raise SettingsError(
            f"WORLD_SIZE={size} in the environment announces several processes and {', '.join(missing) or 'it'} is "
            "not as torchrun sets it; start with `accelerate launch` or `torchrun`, or unset WORLD_SIZE"
        )
    place = int(os.environ["LOCAL_RANK"])
    n_gpus = torch.cuda.device_count()
    if n_gpus and place >= n_gpus:
        raise SettingsError(f"process {place} of this machine has no GPU of its own, there are {n_gpus}; start fewer")
    if n_gpus:
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if n_gpus else "gloo", timeout=PATIENCE)
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


def refuse_process_group(command: str) -> None:
    """Refuse to be one of several processes.

    Raises:
        SettingsError: this process is one.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise SettingsError(f"{command} starts processes of its own; run it without `accelerate launch` or `torchrun`")


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
