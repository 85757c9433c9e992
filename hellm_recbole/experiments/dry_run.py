"""`run.py --dry-run`: what each LLM row would take, printed before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import psutil
import torch
from tabulate import tabulate

from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError
from hellm_recbole.experiments.jobs import check_language_model
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.memory_estimate import MemoryEstimate, estimate_memory
from hellm_recbole.experiments.pretrained import load_pretrained_embeddings
from hellm_recbole.experiments.resolve import RunConfig
from hellm_recbole.experiments.run import RunContext
from hellm_recbole.training.timing import time_epoch
from hellm_recbole.training.trainer import ModelLearner, make_batch_source
from hellm_recbole.types import FloatArray, TrainData

N_STEPS = 3
GIB = 1024**3


def dry_run(
    configs: Sequence[RunConfig], split: Split, context: RunContext, check: LanguageModelCheck
) -> list[HellmError]:
    """Print parameters by part, predicted memory, seconds of an epoch and a micro-batch that fits, for LLM rows.

    A configuration without weights is enough for all but the epoch.

    Args:
        configs: of all rows of a dataset.
        split: of the dataset.
        context: where the rows would run.
        check: of language models, as a run makes it before its first epoch.

    Returns:
        What a run would refuse.
    """
    refused: list[HellmError] = []
    for config in configs:
        if config.steps is None or config.spec is None:
            continue
        fault = _find_fault(check, config, split)
        data = _add_pretrained(config, configs, split, context)
        try:
            batches = make_batch_source(
                config.model_settings, config.train, config.pairs, config.steps, data, context.device
            )
            estimate = estimate_memory(config.model_settings, data, batches, config.steps.micro_batch_size)
        except HellmError as error:
            refused.append(fault or error)
            continue
        print(f"{config.label} on {split.dataset}")
        print(_shown(estimate))
        memory = _memory_bytes(context.device)
        fitting = estimate.fitting(memory)
        print(f"device memory {memory / GIB:.1f} GiB: micro_batch_size up to {fitting}")
        if fault is not None:
            print("an epoch is not timed, for a run would refuse the language model\n")
            refused.append(fault)
            continue
        if estimate.total_bytes > memory:
            print("an epoch is not timed, for the row does not fit\n")
            continue
        row = ModelLearner(
            config.spec,
            config.model_settings,
            data,
            config.train,
            config.pairs,
            context.seed,
            context.device,
            config.steps,
        )
        seconds, n_steps = time_epoch(row, N_STEPS)
        print(f"an epoch: {n_steps} steps of {seconds / n_steps:.2f} s, {seconds / 60:.1f} min\n")
    return refused


def _find_fault(check: LanguageModelCheck, config: RunConfig, split: Split) -> HellmError | None:
    try:
        check_language_model(check, config, split)
    except HellmError as error:
        return error
    return None


def _shown(estimate: MemoryEstimate) -> str:
    parts = [(name, f"{trained:,}", f"{total:,}") for name, (trained, total) in estimate.parts.items()]
    sums = [sum(counts) for counts in zip(*estimate.parts.values(), strict=True)]
    table = tabulate([*parts, ("all", *(f"{n:,}" for n in sums))], ["part", "trained", "parameters"], tablefmt="github")
    return (
        f"{table}\n"
        f"predicted peak {estimate.total_bytes / GIB:.2f} GiB at micro_batch_size {estimate.micro_batch_size}: "
        f"frozen weights {estimate.weight_bytes / GIB:.2f}, training state {estimate.trained_bytes / GIB:.2f}, "
        f"activations {estimate.activation_bytes / GIB:.2f}"
    )


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().available)


def _add_pretrained(config: RunConfig, configs: Sequence[RunConfig], split: Split, context: RunContext) -> TrainData:
    """The training part with the stages' embeddings, or random ones of their width where they are not trained yet."""
    tables: dict[str, FloatArray] = {}
    for model in config.pretrained_models:
        try:
            tables |= load_pretrained_embeddings(
                context.output, split.dataset, (model,), context.seed, split.sha256, split.item_tokens
            )
        except HellmError:
            width = next(other.model_settings.emb_dim for other in configs if other.model == model)
            drawn = np.random.default_rng(0).normal(size=(split.n_items + 1, width)).astype(np.float32)
            drawn[0] = 0.0
            tables[model] = drawn
    return replace(split.train_data(), pretrained=tables)
