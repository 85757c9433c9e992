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
from hellm_recbole.experiments.memory_estimate import Budget, predict
from hellm_recbole.experiments.pretrained import stage_tables
from hellm_recbole.experiments.resolve import RowPlan
from hellm_recbole.experiments.run import Place
from hellm_recbole.training.timing import few_steps
from hellm_recbole.training.trainer import ModelRow, batch_source
from hellm_recbole.types import FloatArray, TrainData

N_STEPS = 3
GIB = 1024**3


def dry_run(plans: Sequence[RowPlan], split: Split, place: Place, check: LanguageModelCheck) -> list[HellmError]:
    """Print parameters by part, predicted memory, seconds of an epoch and a micro-batch that fits, for LLM rows.

    A configuration without weights is enough for all but the epoch.

    Args:
        plans: of all rows of a dataset.
        split: of the dataset.
        place: where the rows would run.
        check: of language models, as a run makes it before its first epoch.

    Returns:
        What a run would refuse.
    """
    refused: list[HellmError] = []
    for plan in plans:
        if plan.steps is None or plan.spec is None:
            continue
        fault = _find_fault(check, plan, split)
        data = _with_stages(plan, plans, split, place)
        try:
            batches = batch_source(plan.model_settings, plan.train, plan.pairs, plan.steps, data, place.device)
            budget = predict(plan.model_settings, data, batches, plan.steps.micro_batch_size)
        except HellmError as error:
            refused.append(fault or error)
            continue
        print(f"{plan.row} on {split.dataset}")
        print(_shown(budget))
        memory = _memory_bytes(place.device)
        fitting = budget.fitting(memory)
        print(f"device memory {memory / GIB:.1f} GiB: micro_batch_size up to {fitting}")
        if fault is not None:
            print("an epoch is not timed, for a run would refuse the language model\n")
            refused.append(fault)
            continue
        if budget.total_bytes > memory:
            print("an epoch is not timed, for the row does not fit\n")
            continue
        row = ModelRow(
            plan.spec, plan.model_settings, data, plan.train, plan.pairs, place.seed, place.device, plan.steps
        )
        seconds, n_steps = few_steps(row, N_STEPS)
        print(f"an epoch: {n_steps} steps of {seconds / n_steps:.2f} s, {seconds / 60:.1f} min\n")
    return refused


def _find_fault(check: LanguageModelCheck, plan: RowPlan, split: Split) -> HellmError | None:
    try:
        check_language_model(check, plan, split)
    except HellmError as error:
        return error
    return None


def _shown(budget: Budget) -> str:
    parts = [(name, f"{trained:,}", f"{total:,}") for name, (trained, total) in budget.parts.items()]
    sums = [sum(counts) for counts in zip(*budget.parts.values(), strict=True)]
    table = tabulate([*parts, ("all", *(f"{n:,}" for n in sums))], ["part", "trained", "parameters"], tablefmt="github")
    return (
        f"{table}\n"
        f"predicted peak {budget.total_bytes / GIB:.2f} GiB at micro_batch_size {budget.micro_batch_size}: "
        f"frozen weights {budget.weight_bytes / GIB:.2f}, training state {budget.trained_bytes / GIB:.2f}, activations "
        f"{budget.activation_bytes / GIB:.2f}"
    )


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().available)


def _with_stages(plan: RowPlan, plans: Sequence[RowPlan], split: Split, place: Place) -> TrainData:
    """The training part with the stages' embeddings, or random ones of their width where they are not trained yet."""
    tables: dict[str, FloatArray] = {}
    for stage in plan.stages:
        try:
            tables |= stage_tables(place.output, split.dataset, (stage,), place.seed, split.sha256, split.item_tokens)
        except HellmError:
            width = next(other.model_settings.emb_dim for other in plans if other.model == stage)
            drawn = np.random.default_rng(0).normal(size=(split.n_items + 1, width)).astype(np.float32)
            drawn[0] = 0.0
            tables[stage] = drawn
    return replace(split.train_data(), stages=tables)
