"""Turn a run into what its result holds: the fields of `record.json`, and ranks with tokens and counts."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch

from hellm_recbole import __version__
from hellm_recbole.config.harness_settings import EvalSettings
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.ranking import Ranks
from hellm_recbole.evaluation.valid_sample import select_valid_targets
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.ranks_file import RANKS_FILE, PhaseRanks
from hellm_recbole.experiments.results import SCHEMA, Counts, SettingValue, ValidSample
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.system import runtime
from hellm_recbole.training.checkpoint import Progress
from hellm_recbole.training.learner import Learner
from hellm_recbole.types import Histories


def collect_initial_fields(config: RunConfig, dataset: Dataset, split: Split, context: RunContext) -> dict[str, Any]:
    """Collect the fields of a run result that are known before training, in the order of the keys of the file.

    Args:
        config: config of the run.
        dataset: dataset of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
    """
    return {
        "schema": SCHEMA,
        "dataset": split.dataset,
        "counts": count_split(split),
        "filter": {"k_core": dataset.k_core, "dropped": dataset.n_dropped},
        "split_kind": split.kind,
        "split_hash": split.sha256,
        "mask_history": "seen",
        "n_candidates": split.n_items,
        "cutoffs": tuple(config.evaluation.cutoffs),
        "model": config.model,
        "backbone": config.backbone,
        "search": config.search,
        "family": config.family,
        "source": config.source,
        "settings": _copy_settings(config),
        "modalities": tuple(sorted(split.features)),
        "seed": context.seed,
        "preset": config.preset,
        "versions": {**runtime.list_versions(), "hellm_recbole": __version__},
        **runtime.read_git_state(),
        "device": _describe_devices(config, context),
        "threads": torch.get_num_threads(),
        "train_seconds": None,
        "eval_seconds": None,
        "epochs_run": 0,
        "best_epoch": None,
        "peak_memory_bytes": {"host": None, "device": None},
        "parameters": {"trainable": None, "total": None},
        "metrics": {"valid": {}, "test": {}},
        "curve": (),
        "ranks": RANKS_FILE,
        "deterministic": runtime.is_deterministic(
            context.device, torch.get_num_threads(), config.name_in_source, config.source
        ),
        "paper": dataset.paper,
        "valid_sample": describe_valid_sample(split, config.evaluation),
    }


def describe_valid_sample(split: Split, evaluation: EvalSettings) -> ValidSample | None:
    """Describe the sample of users that validation evaluates; None if it evaluates all."""
    sample = select_valid_targets(split.valid, evaluation)
    if sample is split.valid:
        return None
    users = np.unique(sample.user)
    tokens = "\n".join(sorted(split.user_tokens[users].tolist()))
    return ValidSample(
        users=len(users),
        of=len(np.unique(split.valid.user)),
        targets=len(sample),
        users_sha256=hashlib.sha256(tokens.encode()).hexdigest(),
    )


def count_sampled(split: Split, evaluation: EvalSettings) -> int | None:
    """Count the users of the sample that validation evaluates; None if it evaluates all."""
    sample = select_valid_targets(split.valid, evaluation)
    return None if sample is split.valid else len(np.unique(sample.user))


def count_split(split: Split) -> Counts:
    """Count users, items and interactions of the dataset and of the parts of its split."""
    return {
        "users": split.n_users,
        "items": split.n_items,
        "interactions": split.n_interactions,
        "train": len(split.train.items),
        "valid": len(split.valid),
        "test": len(split.test),
        "short_users": split.n_short_users,
    }


def _copy_settings(config: RunConfig) -> dict[str, SettingValue]:
    """Return the value and the origin of each setting, with the types that JSON gives back."""
    return {
        key: {"value": json.loads(json.dumps(value)), "origin": config.resolved.origin[key]}
        for key, value in sorted(config.resolved.values.items())
    }


def _describe_devices(config: RunConfig, context: RunContext) -> str:
    """Describe the devices of a run, such as `2 x NVIDIA H100` for two processes."""
    name, size = runtime.describe_device(context.device), context.choose_group(config).size
    return name if size == 1 else f"{size} x {name}"


def collect_training_fields(
    learner: Learner, progress: Progress, context: RunContext, build_seconds: float
) -> dict[str, Any]:
    """Collect the fields of a run result that are known after training.

    Args:
        learner: the trained learner.
        progress: progress at the end of training.
        context: output folder, random seed, device and processes of the run.
        build_seconds: time in which the learner was built, which counts as training.
    """
    parameters = list(learner.module.parameters())
    curve = tuple({**entry, "valid": entry["valid"] or {}} for entry in progress.curve)
    return {
        "train_seconds": build_seconds + progress.train_seconds,
        "eval_seconds": progress.eval_seconds,
        "epochs_run": progress.epoch,
        "best_epoch": progress.best_epoch,
        "peak_memory_bytes": runtime.measure_peak_memory(context.device),
        "parameters": {
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
            "total": sum(p.numel() for p in parameters),
        },
        "curve": curve,
    }


def build_phase_ranks(ranks: Ranks, split: Split, seen: Histories) -> PhaseRanks:
    """Add to ranks the tokens of users and items, and the counts by which results are sliced.

    Args:
        ranks: ranks of T targets, with numbers of users and items.
        split: split of the dataset.
        seen: interactions of each user before the phase.
    """
    popularity = np.bincount(split.train.items, minlength=split.n_items + 1)
    return PhaseRanks(
        user=split.user_tokens[ranks.user],
        item=split.item_tokens[ranks.item],
        rank=ranks.seen,
        rank_train=ranks.train,
        rank_none=ranks.none,
        history_length=seen.count_items()[ranks.user].astype(np.int32),
        item_count=popularity[ranks.item].astype(np.int32),
    )
