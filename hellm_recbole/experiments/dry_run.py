"""`run.py --dry-run`: print the cost of each LLM run without training it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import psutil
import torch
from tabulate import tabulate

from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.jobs import check_language_model
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.memory_estimate import MemoryEstimate, estimate_run_memory
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.run_config import LLMRunConfig, RunConfig
from hellm_recbole.training.timing import time_epoch
from hellm_recbole.types import USER_TABLE, FloatArray, TrainData

N_STEPS = 3
GIB = 1024**3


def dry_run(
    configs: Sequence[RunConfig], split: Split, context: RunContext, check: LanguageModelCheck
) -> list[HellmError]:
    """Print the cost of each LLM run: parameters by part, memory, micro-batch size that fits, time of an epoch.

    All but the time of an epoch needs only the configuration of the language model, not its weights.

    Args:
        configs: run configs of all runs on the dataset.
        split: split of the dataset.
        context: context of the runs.
        check: check of language models that a run makes before its first epoch.

    Returns:
        Errors that the runs would raise.
    """
    errors: list[HellmError] = []
    store = PretrainedStore()
    llm_configs = [config for config in configs if isinstance(config, LLMRunConfig)]
    if not llm_configs:
        print(f"{split.dataset}: no model with a language model is named, so there is nothing to estimate")
    for config in llm_configs:
        model_error = _find_model_error(check, config, split)
        data = add_pretrained(config, configs, split, context, store)
        try:
            estimate = estimate_run_memory(config, data)
        except HellmError as error:
            errors.append(model_error or error)
            continue
        print(f"{config.label} on {split.dataset}")
        print(_format_estimate(estimate))
        memory = _measure_memory_bytes(context.device)
        fitting = estimate.compute_max_micro_batch_size(memory)
        print(f"device memory {memory / GIB:.1f} GiB: micro_batch_size up to {fitting}")
        if model_error is not None:
            print("an epoch is not timed, because a run would refuse the language model\n")
            errors.append(model_error)
            continue
        if estimate.total_bytes > memory:
            print("an epoch is not timed, because the model does not fit into the memory\n")
            continue
        learner = config.build_learner(data, context.seed, context.device)
        seconds, n_steps = time_epoch(learner, N_STEPS)
        print(f"an epoch: {n_steps} steps of {seconds / n_steps:.2f} s, {seconds / 60:.1f} min\n")
    return errors


def _find_model_error(check: LanguageModelCheck, config: LLMRunConfig, split: Split) -> HellmError | None:
    """Return the error that a run would raise for its language model, or None."""
    try:
        check_language_model(check, config, split)
    except HellmError as error:
        return error
    return None


def _format_estimate(estimate: MemoryEstimate) -> str:
    """Format an estimate as a table of parameters and a sentence on memory."""
    parts = [(name, f"{trained:,}", f"{total:,}") for name, (trained, total) in estimate.parts.items()]
    sums = [sum(counts) for counts in zip(*estimate.parts.values(), strict=True)]
    table = tabulate([*parts, ("all", *(f"{n:,}" for n in sums))], ["part", "trained", "parameters"], tablefmt="github")
    return (
        f"{table}\n"
        f"predicted peak {estimate.total_bytes / GIB:.2f} GiB at micro_batch_size {estimate.micro_batch_size}: "
        f"frozen weights {estimate.weight_bytes / GIB:.2f}, training state {estimate.trained_bytes / GIB:.2f}, "
        f"activations {estimate.activation_bytes / GIB:.2f}"
    )


def _measure_memory_bytes(device: torch.device) -> int:
    """Return the total memory of a GPU, or the free memory of the machine for the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().available)


def add_pretrained(
    config: RunConfig, configs: Sequence[RunConfig], split: Split, context: RunContext, store: PretrainedStore
) -> TrainData:
    """Return the training part with the pretrained embeddings of a run.

    A pretrained model that is not trained yet is replaced by random embeddings of the same width.
    """
    tables: dict[str, FloatArray] = {}
    for table in config.pretrained_tables:
        try:
            tables |= store.load(context.output, split, [table], context.seed).tables
        except HellmError:
            model = table.removesuffix(USER_TABLE)
            width = next(other.resolved.values["emb_dim"] for other in configs if other.model == model)
            n_rows = (split.n_items if table == model else split.n_users) + 1
            vectors = np.random.default_rng(0).normal(size=(n_rows, width)).astype(np.float32)
            vectors[0] = 0.0
            tables[table] = vectors
    return config.restrict_data(replace(split.make_train_data(), pretrained=tables))
