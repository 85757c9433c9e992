"""Data, run configs and device of a process of `gpu` that measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks.tasks.gpu_data import FULL, TINY, make_shop
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.data.synthetic_shop import SYNTHETIC_SHOP
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.dry_run import add_pretrained
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.run_config import OwnRunConfig, RunConfig
from hellm_recbole.system import runtime
from hellm_recbole.types import TrainData

SEED = 2024
# Building TIGER trains its quantizer first; two epochs of it do not change what is timed.
OVERRIDES: Mapping[str, Mapping[str, Any]] = {"TIGER": {"rq_epochs": 2}}
TINY_OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    "TIGER": {"rq_epochs": 2, "codebook_size": 16, "n_blocks": 1, "beam_size": 40},
    "": {"batch_size": 64, "micro_batch_size": 32, "prefix_hidden": 16},
}


class Request(BaseModel):
    """What a measuring process has to do.

    Attributes:
        device: name of the device.
        tiny: whether models are small, for a CPU.
        branches: size of the data.
        llm: folder or name of the language model.
        steps: number of timed steps.
        users: number of users whose ranking is timed.
        folder: folder for temporary files.
        cases: (part, row) of each measurement.
    """

    device: str
    tiny: bool
    branches: int
    llm: str
    steps: int
    users: int
    folder: Path
    cases: list[tuple[str, str]]


class Bench:
    """Data, run configs and device of a measuring process.

    Args:
        request: what to measure.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.device = runtime.choose_device(request.device)
        torch.set_float32_matmul_precision("highest")

    @cached_property
    def split(self) -> Split:
        """The split of the shop."""
        sizes = TINY if self.request.tiny else FULL
        return make_shop(replace(sizes, branches=self.request.branches))

    @cached_property
    def configs(self) -> Sequence[RunConfig]:
        """Run configs of all rows, with those that they read."""
        chosen = {**OVERRIDES, **TINY_OVERRIDES} if self.request.tiny else OVERRIDES
        values = [(row or None, key, value) for row, pairs in chosen.items() for key, value in pairs.items()]
        values.append((None, "llm", self.request.llm))
        overrides = [Override(row, key, value, f"{key}={value}") for row, key, value in values]
        return Resolver(SYNTHETIC_SHOP, REGISTRY, "paper", overrides).resolve_with_pretrained([*REGISTRY])

    def find_config(self, row: str) -> OwnRunConfig:
        """Find the run config of a row."""
        config = next(config for config in self.configs if config.model == row)
        assert isinstance(config, OwnRunConfig)
        return config

    def make_data(self, config: RunConfig) -> TrainData:
        """Make the training data of a row; what it reads of other rows is random."""
        context = RunContext(self.request.folder, SEED, self.device)
        return add_pretrained(config, self.configs, self.split, context, PretrainedStore())
