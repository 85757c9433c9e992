"""The context of a run: where its results go, its random seed, its device and its processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hellm_recbole.experiments.run_config import LLMRunConfig, RunConfig
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup

CHECKPOINT = "checkpoint"  # folder of the checkpoint, inside the folder of a run


@dataclass(frozen=True)
class RunContext:
    """Output folder, random seed, device and processes of a run.

    Attributes:
        output: folder of all results.
        seed: random seed of the run.
        device: device that the run uses.
        group: process group that trains LLM models together; its first process trains all other models alone.
        jobs: number of runs that the command executes side by side; None if another program decides it.
    """

    output: Path
    seed: int
    device: torch.device
    group: ProcessGroup = SINGLE_PROCESS
    jobs: int | None = 1

    def choose_group(self, config: RunConfig) -> ProcessGroup:
        """Return the processes that train a run: the whole group for LLM models, one process for others."""
        return self.group if isinstance(config, LLMRunConfig) else SINGLE_PROCESS

    def locate_run(self, config: RunConfig, dataset: str) -> Path:
        """Return the folder of a run: `<output>/<dataset>/<label>/<seed>`."""
        return self.output / dataset / config.label / str(self.seed)
