"""Run the same model through RecBole's entry point and through `benchmarks/run.py`, and compare the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hellm_recbole.benchmarks import run
from hellm_recbole.experiments.ranks_file import RANKS_FILE, read_ranks

ROWS = {  # the rows of `run.py --models all` on data with texts only -> name in RecBole
    "Pop": "HellmPop",
    "ItemKNN": "HellmItemKNN",
    "EASE": "HellmEASE",
    "BPR": "HellmBPR",
    "LightGCN": "HellmLightGCN",
    "VBPR": "VBPR",
    "GRCN": "GRCN",
    "LATTICE": "LATTICE",
    "SLMRec": "SLMRec",
    "BM3": "BM3",
    "FREEDOM": "FREEDOM",
    "HeLLMPre": "HeLLMPre",
    "SASRec": "HellmSASRec",
    "BSARec": "BSARec",
    "SASRec-text": "SASRec-text",
    "TIGER": "TIGER",
    "CoLLM": "CoLLM",
    "LLaRA": "LLaRA",
    "E4SRec": "E4SRec",
    "HeLLM": "HeLLM",
}
SEED = 7
QUIET: dict[str, Any] = {"state": "error", "show_progress": False, "gpu_id": "", "seed": SEED}

Ranks = dict[tuple[str, str], int]


def rank_by_command(dataset: str, model: str, output: Path, *arguments: str) -> Ranks:
    """Return the test ranks that `benchmarks/run.py` writes for a model: (user token, item token) -> rank."""
    words = ["--models", model, "--dataset", dataset, "--seeds", str(SEED), "--output", str(output), "--threads", "1"]
    assert run.main([*words, *arguments]) == 0
    (path,) = (path for path in find_ranks(output / dataset) if path.parts[-3].partition("@")[0] == model)
    return read_test_ranks(path)


def find_ranks(folder: Path) -> list[Path]:
    """Find the files of ranks of all runs of a dataset; their folders are `<label>/<seed>`."""
    return sorted(folder.glob(f"*/{SEED}/{RANKS_FILE}"))


def read_test_ranks(path: Path) -> Ranks:
    """Read the test ranks of a run of `benchmarks/run.py`."""
    ranks = read_ranks(path)["test"]
    keys = zip(ranks.user.tolist(), ranks.item.tolist(), strict=True)
    return dict(zip(keys, ranks.rank.tolist(), strict=True))


def rank_by_recbole(dataset: str, model: str, values: Mapping[str, Any]) -> tuple[Ranks, dict[str, Any]]:
    """Return the test ranks of RecBole's `run_recbole`, and its result."""
    from recbole.quick_start import run_recbole

    from hellm_recbole.bridge.trainer import HarnessTrainer

    trainers: list[HarnessTrainer] = []
    evaluate = HarnessTrainer.evaluate

    def evaluate_and_keep(self: HarnessTrainer, *args: Any, **options: Any) -> Any:
        trainers.append(self)
        return evaluate(self, *args, **options)

    HarnessTrainer.evaluate = evaluate_and_keep  # type: ignore[method-assign]
    try:
        result = run_recbole(model=model, dataset=dataset, config_dict={**QUIET, **values})
    finally:
        HarnessTrainer.evaluate = evaluate  # type: ignore[method-assign]
    ranks, split = trainers[-1].ranks, trainers[-1].model.split
    assert ranks is not None
    keys = zip(split.user_tokens[ranks.user].tolist(), split.item_tokens[ranks.item].tolist(), strict=True)
    return dict(zip(keys, np.asarray(ranks.rank).tolist(), strict=True)), result
