"""Train every model for an epoch in this process and print what came out: `train_all.py DATASET FOLDER THREADS`.

LLM models read the item embeddings of the models trained before them, as they do in `benchmarks/run.py`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hellm_recbole.system.openmp  # noqa: F401

import numpy as np
import torch

from baselines.registry import RECBOLE_BASELINES, REGISTRY
from hellm_recbole.data.atomic import load_dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.experiments.resolve import Override, RunConfig, resolve_runs
from hellm_recbole.experiments.run import build_learner_from
from hellm_recbole.models.base import LLM
from hellm_recbole.training.checkpoint import CheckpointFolder
from hellm_recbole.training.trainer import Learner, fit
from hellm_recbole.types import FloatArray
from tests.toy_llm import tiny_llama

STAGES = ("LightGCN", "HeLLMPre", "SASRec")
OTHERS = ("RecBole-LightGCN",)  # takes rows with `table[ids]`: the trainer itself has to order the sums
NAMES = (*RECBOLE_BASELINES, *OTHERS, *sorted(REGISTRY, key=lambda name: REGISTRY[name].family == LLM))
SEED = 3


class _Unseen:
    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """No progress."""

    def epoch(self, progress: Any) -> None:
        """No progress."""


def config(name: str) -> RunConfig:
    """One epoch of the quick preset; batches of LLM models are so large that torch shares them among its threads."""
    values: dict[str, Any] = {"epochs": 1}
    if name in REGISTRY and REGISTRY[name].family == LLM:
        values |= {"llm": str(tiny_llama()), "batch_size": 256, "micro_batch_size": 256, "warmup_epochs": 0}
    overrides = [Override(name, key, value, f"{key}={value}") for key, value in values.items()]
    return resolve_runs([name], "ml-100k", REGISTRY, "quick", overrides)[0]


def train(name: str, split: Split, pretrained: dict[str, FloatArray], folder: Path) -> Learner:
    """The trained model."""
    p = config(name)
    data = replace(split.train_data(), pretrained=pretrained if p.pretrained_models else {})
    row = build_learner_from(p, data, SEED, torch.device("cpu"))
    checkpoint = CheckpointFolder(folder / name)
    fit(
        row,
        split.selection(),
        p.train,
        p.evaluation,
        seed=SEED,
        checkpoint=checkpoint,
        run="",
        who=name,
        view=_Unseen(),
    )
    return row


def describe(name: str, row: Learner, split: Split) -> dict[str, str]:
    """Digests of all parameters, one by one, and of the validation ranks."""
    ranks = rank_targets(row, split.valid, train=split.train, seen=split.train, block_users=96, who=name)
    arrays = {key: value.numpy() for key, value in row.module.state_dict().items()}
    arrays |= {"ranks": ranks.seen, **{key: value.numpy() for key, value in row.extra_state().items()}}
    return {key: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for key, array in arrays.items()}


def main(dataset: Path, folder: Path, threads: int) -> None:
    """Print name -> digests as JSON."""
    torch.set_num_threads(threads)
    split = split_dataset(load_dataset(dataset, modalities=None))
    pretrained: dict[str, FloatArray] = {}
    found = {}
    for name in NAMES:
        row = train(name, split, pretrained, folder)
        found[name] = describe(name, row, split)
        if name in STAGES:
            module: Any = row.module
            with torch.no_grad():
                table = module.encode().items.clone()
            table[0] = 0.0
            pretrained[name] = table.numpy()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
