"""Measure what a run costs from outside of it: its own memory, its training examples and its tokens.

Nothing here is part of the code that a number depends on. Most times are in the record already: those of the epochs, of
all training, and of all validations. The time after training and that of the whole run are measured here.

The memory of a row is the peak of its process less what was resident right before. One process measures many rows: the
peak is reset at the start of each run, and what earlier rows have freed is returned to the system first, for glibc
keeps it otherwise (`runtime.keep_freed_memory`) and the next row would seem to need less.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hellm_recbole.data.split import Split
from hellm_recbole.experiments.cost_record import Costs
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.experiments.run_config import LLMRunConfig, OwnRunConfig, RunConfig
from hellm_recbole.llm.backbone import Backbone
from hellm_recbole.system.freed_memory import return_freed_memory

STATUS = Path("/proc/self/status")


class CostMeter:
    """Measures the costs of one run; a logger that counts its epochs (`training.loggers.Logger`).

    Args:
        config: config of the run.
        split: split of the dataset.
    """

    def __init__(self, config: RunConfig, split: Split) -> None:
        self._n_examples = count_examples(config, split)
        self._counts_tokens = isinstance(config, LLMRunConfig) and config.backbone is not None
        self._n_epochs = self._n_tokens = 0
        self._started = time.perf_counter()
        self._trained_at: float | None = None
        if config.combined_runs == () and not (isinstance(config, OwnRunConfig) and config.spec.is_fitted):
            load_training_code()
        self._resident = measure_resident_memory()

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Do nothing inside an epoch."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Count an epoch that this process has trained; those before a restart are not counted."""
        self._n_epochs += 1

    def close(self) -> None:
        """Note the end of training; ranking is a cost, too."""
        if self._trained_at is None:
            self._trained_at = time.perf_counter()

    @contextmanager
    def count_tokens(self) -> Iterator[None]:
        """Count the positions that language models read with gradients in the block, which are those of training."""
        if not self._counts_tokens:
            yield
            return
        original = Backbone.compute_states

        def compute_states(backbone: Backbone, embedded: torch.Tensor, context: Any) -> torch.Tensor:
            if torch.is_grad_enabled():
                self._n_tokens += len(embedded)
            return original(backbone, embedded, context)

        # The class is replaced for the time of the run: a counter inside it would change the code of all LLM rows.
        Backbone.compute_states = compute_states  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            Backbone.compute_states = original  # type: ignore[method-assign]

    def measure(self, result: RunResult, n_processes: int = 1, jobs: int | None = 1) -> Costs:
        """Return the costs of the run.

        Args:
            result: its result.
            n_processes: number of processes that have trained it; this one has read only its share of the tokens.
            jobs: number of runs that were executed side by side; None if it is unknown.
        """
        ended = time.perf_counter()
        peak = result.peak_memory_bytes["host"]
        known = peak is not None and self._resident is not None
        knows_tokens = self._counts_tokens and self._n_epochs > 0 and n_processes == 1
        return Costs(
            resident_bytes=self._resident,
            row_bytes=max((peak or 0) - (self._resident or 0), 0) if known else None,
            examples_per_epoch=self._n_examples,
            tokens_per_epoch=self._n_tokens // self._n_epochs if knows_tokens else None,
            jobs=jobs,
            total_seconds=ended - self._started if self._n_epochs == result.epochs_run else None,
            final_seconds=None if self._trained_at is None else ended - self._trained_at,
        )


@functools.cache
def load_training_code() -> None:
    """Make a step of an optimizer, once in a process: torch then loads code that is not the memory of the first row."""
    weight = torch.zeros(1, requires_grad=True)
    weight.sum().backward()
    torch.optim.Adam([weight]).step()


def measure_resident_memory() -> int | None:
    """Return freed memory to the system, and return the resident memory of the process in bytes; None but on Linux."""
    if not STATUS.exists():
        return None
    return_freed_memory()
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def count_examples(config: RunConfig, split: Split) -> int | None:
    """Count the training targets of an epoch; None for rows that are not trained, and for models of RecBole.

    With `drop_last`, the last batch is not counted. If an example has several targets, this is their mean number over
    all that may be in that batch.

    Args:
        config: config of the run.
        split: split of the dataset.
    """
    if not isinstance(config, OwnRunConfig) or config.spec.is_fitted:
        return None
    if config.pairs is not None:
        return len(split.train.items)
    longest: int = config.model_settings.max_history + 1
    per_user: int | None = None
    drops_last = False
    is_causal = config.spec.batches == "sequences"
    if isinstance(config, LLMRunConfig):
        is_causal, drops_last = config.model_settings.examples == "causal", config.steps.drop_last
        if not is_causal:
            longest = config.steps.example_items or longest
            per_user = config.steps.examples_per_user if config.model_settings.examples == "random" else None
    n_targets = np.maximum(np.minimum(split.train.count_items(), longest) - 1, 0)
    if per_user is not None:
        n_targets = np.minimum(n_targets, per_user)
    total, size = int(n_targets.sum()), config.train.batch_size
    if not drops_last:
        return total
    n_rows = int(np.count_nonzero(n_targets)) if is_causal else total
    return round(total * (n_rows // size * size) / n_rows)
