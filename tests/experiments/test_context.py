from __future__ import annotations

from pathlib import Path

import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.resolve import resolve_run


def test_a_run_has_a_folder_for_each_dataset_label_and_seed() -> None:
    context = RunContext(Path("results"), 7, torch.device("cpu"))
    config = resolve_run("VBPR", "toy", REGISTRY, "quick", [])
    assert context.locate_run(config, "toy") == Path("results/toy/VBPR/7")
