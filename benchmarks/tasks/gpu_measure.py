"""Time steps and rankings of a learner under a number type, and measure the peak memory of training."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.ranking import RankArray, rank_targets
from hellm_recbole.experiments.cost_meter import measure_resident_memory
from hellm_recbole.experiments.run_config import LLMRunConfig, OwnRunConfig
from hellm_recbole.system import runtime
from hellm_recbole.training.learner import Learner
from hellm_recbole.types import Targets

FLOAT32, TF32, BFLOAT16 = "float32", "TF32", "bfloat16"
MODES = (FLOAT32, TF32, BFLOAT16)
# Settings of a model for its number types; all other models get bfloat16 from torch.autocast.
HALF_SETTINGS = {"HeLLMPre": {"propagation_dtype": BFLOAT16, "contrast_dtype": BFLOAT16}}
WITHOUT_BFLOAT16 = ("GRCN", "LATTICE", "TIGER")  # torch.autocast would mix number types in operations that refuse it
MIB = 2**20


class _EnoughSteps(Exception):
    """Raised to end an epoch after enough steps."""


@dataclass(frozen=True)
class Steps:
    """The first steps of an epoch.

    Attributes:
        first_s: seconds of the first step, with what it has to load or compile.
        loss: sum of the mean loss terms over the steps.
    """

    first_s: float
    loss: float


def train_steps(learner: Learner, steps: int, seed: int) -> Steps:
    """Train the first steps of an epoch.

    Args:
        learner: learner to train.
        steps: number of steps.
        seed: random seed of the epoch.
    """
    ends: list[float] = []
    loss = 0.0

    def on_step(step: int, total: int, losses: dict[str, float]) -> None:
        nonlocal loss
        loss = sum(losses.values())
        ends.append(time.perf_counter())
        if len(ends) == steps:
            raise _EnoughSteps

    started = time.perf_counter()
    with contextlib.suppress(_EnoughSteps):
        learner.train_epoch(1, seed, on_step)
    return Steps(ends[0] - started, loss)


def choose_numbers(config: OwnRunConfig, mode: str) -> OwnRunConfig:
    """Return the config of a row with the settings that its own number types need under a mode."""
    values = HALF_SETTINGS.get(config.model, {}) if mode == BFLOAT16 else {}
    if isinstance(config, LLMRunConfig):
        values = {"llm_dtype": BFLOAT16 if mode == BFLOAT16 else FLOAT32}
    return replace(config, model_settings=config.model_settings.model_copy(update=values)) if values else config


def has_own_bfloat16(config: OwnRunConfig) -> bool:
    """Return whether the model of a row has settings for bfloat16."""
    return isinstance(config, LLMRunConfig) or config.model in HALF_SETTINGS


@contextmanager
def use_mode(module: Any, mode: str, device: torch.device, *, autocast: bool) -> Iterator[None]:
    """Compute with the number types of a mode in the block.

    Args:
        module: model whose `loss`, and what is called in the block, computes so.
        mode: one of `MODES`.
        device: device of the model.
        autocast: whether bfloat16 comes from torch.autocast.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if mode == TF32 else "highest")
    plain: Any = getattr(module, "loss", None)  # a fitted model has none
    half = mode == BFLOAT16 and autocast

    def compute_loss(batch: Any) -> Any:
        with torch.autocast(device.type, torch.bfloat16):
            return plain(batch)

    try:
        if half and plain is not None:
            module.loss = compute_loss
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        if half and plain is not None:
            del module.loss


def time_ranking(learner: Learner, split: Split, n_users: int, block_users: int) -> tuple[float, RankArray]:
    """Time the ranking of validation targets of some users.

    Args:
        learner: learner of the model.
        split: split of the data.
        n_users: number of users.
        block_users: number of users in a block.

    Returns:
        Seconds for all users, and the ranks of the targets that were ranked.
    """
    known = np.unique(split.valid.user)
    last = int(np.searchsorted(split.valid.user, known[min(n_users, len(known)) - 1], side="right"))
    some = Targets(split.valid.user[:last], split.valid.item[:last])

    def rank() -> tuple[float, RankArray]:
        started = time.perf_counter()
        ranks = rank_targets(
            learner, some, train=split.train, seen=split.train, block_users=block_users, who="validation"
        )
        return time.perf_counter() - started, ranks.seen

    rank()  # warm-up
    started = time.perf_counter()
    with torch.no_grad():
        learner.prepare()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    prepared = time.perf_counter() - started
    seconds, ranks = rank()
    return prepared + max(seconds - prepared, 0.0) * len(split.valid) / last, ranks


def measure_training_peak(build: Callable[[], Learner], steps: int, device: torch.device) -> int:
    """Measure the peak memory of building a model and training the first steps of an epoch, in bytes.

    On CUDA it is what torch has allocated on the device; elsewhere what the process needs more than before.

    Args:
        build: function that builds the learner.
        steps: number of steps.
        device: device of the learner.
    """
    free_memory()
    resident = measure_resident_memory() or 0
    runtime.reset_peak_memory(device)
    allocated = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    learner = build()
    train_steps(learner, steps, seed=0)  # the epoch whose first batches the prediction reads
    peak = runtime.measure_peak_memory(device)
    if peak["device"] is not None:
        return peak["device"] - allocated
    return max((peak["host"] or 0) - resident, 0)


def free_memory() -> None:
    """Return the memory of what no longer exists to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
