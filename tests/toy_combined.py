"""Small trained runs on the toy dataset, for the tests of combined runs."""

from __future__ import annotations

from pathlib import Path

import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.combined_config import CombinedRunConfig
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.jobs import RunJob, run_job
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.run_config import RunConfig

SETTINGS_WITHOUT_TRAINING = {  # that combined and fitted rows have besides their own
    "valid_metric",
    "cutoffs",
    "eval_block_users",
    "eval_product",
    "valid_users",
    "valid_users_seed",
    "loggers",
    "ray_cpus",
    "ray_gpus",
}
SMALL = ("SASRec.epochs=4", "SASRec.batch_size=16", "LightGCN.epochs=2", "SASRec.emb_dim=8", "LightGCN.emb_dim=8")


def build_resolver(*overrides: Override) -> Resolver:
    """Build a resolver with small settings of SASRec and LightGCN, and further overrides."""
    small = [
        Override(model, key, int(value), f"--set {model}.{key}={value}")
        for model, key, value in (text.replace("=", ".").split(".") for text in SMALL)
    ]
    return Resolver("toy", REGISTRY, "quick", [*small, *overrides])


def resolve_combined(name: str, *overrides: Override) -> CombinedRunConfig:
    """Resolve the run config of a combined row."""
    config = build_resolver(*overrides).resolve(name)
    assert isinstance(config, CombinedRunConfig)
    return config


def build_context(output: Path) -> RunContext:
    """Build the context of all runs of a test."""
    return RunContext(output, 7, torch.device("cpu"))


def run_all(output: Path, dataset: Dataset, split: Split, *names: str) -> None:
    """Run some rows, and before them all runs that they combine.

    Raises:
        AssertionError: a run failed.
    """
    resolver = build_resolver()
    done: set[str] = set()

    def run(config: RunConfig) -> None:
        for row in config.combined_runs:
            run(row)
        if config.label not in done:
            done.add(config.label)
            job = RunJob(config, build_context(output), False, (), False, split.dataset)
            assert run_job(job, dataset, split, PretrainedStore()) is None

    for name in names:
        run(resolver.resolve(name))
