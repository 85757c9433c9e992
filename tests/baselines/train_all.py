"""Train every model for one epoch in this process and print digests: `train_all.py DATASET FOLDER THREADS`.

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

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.models.base import LLM
from hellm_recbole.training.checkpoint import CheckpointFolder
from hellm_recbole.training.learner import Learner
from hellm_recbole.training.trainer import fit
from hellm_recbole.types import FloatArray
from tests.toy_llm import tiny_llama

PRETRAINED_MODELS = ("LightGCN", "HeLLMPre", "SASRec", "SASRec-text-llm")
# RecBole-LightGCN reads vectors with `table[ids]`: the training loop must make the sums deterministic.
OTHERS = ("RecBole-Pop", "RecBole-ItemKNN", "RecBole-BPR", "RecBole-LightGCN")
NAMES = (*OTHERS, *sorted(REGISTRY, key=lambda name: REGISTRY[name].family == LLM))
SEED = 3


class _SilentView:
    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """Show no progress."""

    def epoch(self, progress: Any) -> None:
        """Show no progress."""


def build_config(name: str) -> RunConfig:
    """Build the config of one epoch; batches of LLM models are so large that torch divides them among its threads."""
    values: dict[str, Any] = {"epochs": 1}
    if name in REGISTRY and REGISTRY[name].family == LLM:
        values |= {"llm": str(tiny_llama()), "batch_size": 256, "micro_batch_size": 256, "warmup_epochs": 0}
    if name in ("SASRec-text-llm", "HeLLM-plus"):
        values |= {"modalities": ["text"]}  # ml-100k has no other
    overrides = [Override(name, key, value, f"{key}={value}") for key, value in values.items()]
    return resolve_runs([name], "ml-100k", REGISTRY, "quick", overrides)[0]


def train(name: str, split: Split, pretrained: dict[str, FloatArray], folder: Path) -> Learner:
    """Train a model and return its learner."""
    config = build_config(name)
    data = replace(split.make_train_data(), pretrained=pretrained if config.pretrained_models else {})
    learner = config.build_learner(data, SEED, torch.device("cpu"))
    checkpoint = CheckpointFolder(folder / name)
    fit(
        learner,
        split.make_selection_data(),
        config.train,
        config.evaluation,
        seed=SEED,
        checkpoint=checkpoint,
        run="",
        who=name,
        view=_SilentView(),
    )
    return learner


def describe(name: str, learner: Learner, split: Split) -> dict[str, str]:
    """Compute digests of each parameter and of the validation ranks."""
    ranks = rank_targets(learner, split.valid, train=split.train, seen=split.train, block_users=96, who=name)
    arrays = {key: value.numpy() for key, value in learner.module.state_dict().items()}
    arrays |= {"ranks": ranks.seen, **{key: value.numpy() for key, value in learner.collect_extra_state().items()}}
    return {key: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for key, array in arrays.items()}


def main(dataset: Path, folder: Path, threads: int) -> None:
    """Train all models and print name -> digests as JSON."""
    torch.set_num_threads(threads)
    split = split_dataset(load_dataset(dataset, modalities=None))
    pretrained: dict[str, FloatArray] = {}
    digests = {}
    for name in NAMES:
        learner = train(name, split, pretrained, folder)
        digests[name] = describe(name, learner, split)
        if name in PRETRAINED_MODELS:
            module: Any = learner.module
            with torch.no_grad():
                table = module.encode().items.clone()
            table[0] = 0.0
            pretrained[name] = table.numpy()
    print(json.dumps(digests))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
