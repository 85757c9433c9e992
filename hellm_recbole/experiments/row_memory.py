"""Predict the memory of a run before it starts beside others, so that it can wait until so much is free.

A run of the same row on the same dataset says how much it needed. Without one, a model with a language model is
estimated by `memory_estimate`, a fitted model by its own `estimate_bytes`, and any other from the sizes of its tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil

from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, ResultError
from hellm_recbole.experiments.dry_run import add_pretrained
from hellm_recbole.experiments.fitted_config import FittedRunConfig
from hellm_recbole.experiments.jobs import RunJob
from hellm_recbole.experiments.memory_estimate import ADAM_BYTES, estimate_run_memory
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.results import RECORD_FILE, read_result
from hellm_recbole.experiments.run_config import LLMRunConfig, RunConfig

TABLE_COPIES = 3  # a table, and the vectors of two layers of a graph or of a batch that are kept for the gradients
SCORE_COPIES = 3  # scores of a block of users: the scores, the masked ones, and a comparison with the targets
FLOAT_BYTES = 4


def predict_row_bytes(job: RunJob, split: Split, configs: Sequence[RunConfig]) -> int:
    """Predict the memory that the run of a job needs besides data and libraries, in bytes.

    Args:
        job: the job; the runs that it reads have ended.
        split: split of its dataset.
        configs: run configs of all jobs on the dataset.
    """
    paths = sorted(job.folder.parent.glob(f"*/{RECORD_FILE}"))
    paths += [folder / RECORD_FILE for folder in job.combined_folders]
    known = [size for path in paths if (size := _read_row_bytes(path)) is not None]
    if known:
        return max(known)
    config = job.config
    try:
        if isinstance(config, LLMRunConfig):
            return _estimate_llm(job, config, split, configs)
    except HellmError:  # the run itself says what is wrong
        return 0
    if isinstance(config, FittedRunConfig):
        estimate = getattr(config.spec.cls, "estimate_bytes", None)
        return 0 if estimate is None else int(estimate(split.n_items))
    return estimate_table_bytes(config, split)


def estimate_table_bytes(config: RunConfig, split: Split) -> int:
    """Estimate the memory of a trained model from its tables of users and items, its features and a block of scores."""
    values = config.resolved.values
    width, block = values.get("emb_dim", 0), values["eval_block_users"]
    if not isinstance(width, int):
        width = 0
    tables = (split.n_users + split.n_items) * width * ADAM_BYTES * TABLE_COPIES
    features = sum(matrix.nbytes for matrix in config.choose_features(split.features).values())
    return int(tables + 2 * features + SCORE_COPIES * FLOAT_BYTES * min(block, split.n_users) * split.n_items)


def measure_free_bytes(claims: Sequence[tuple[int, int]]) -> int:
    """Measure the free memory of the machine, less what running processes will still take.

    Args:
        claims: process id and predicted memory in bytes of each run that is in progress.
    """
    free = int(psutil.virtual_memory().available)
    for pid, predicted in claims:
        try:
            taken = int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:  # it has just ended
            taken = predicted
        free -= max(predicted - taken, 0)
    return free


def _read_row_bytes(path: Path) -> int | None:
    """Read the memory of the run itself from a record; None if there is no finished run, or it is unknown."""
    try:
        result = read_result(path)
    except ResultError:
        return None
    return None if result.costs is None else result.costs["row_bytes"]


def _estimate_llm(job: RunJob, config: LLMRunConfig, split: Split, configs: Sequence[RunConfig]) -> int:
    """Estimate the peak memory of an LLM run on the CPU, or the memory of its weights if they go to a GPU."""
    data = add_pretrained(config, configs, split, job.context, PretrainedStore())
    estimate = estimate_run_memory(config, data)
    return estimate.total_bytes if job.context.device.type == "cpu" else estimate.weight_bytes
