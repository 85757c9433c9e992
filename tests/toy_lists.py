"""Runs on the toy dataset with ranks and test lists of the same scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hellm_recbole.data.split import Split
from hellm_recbole.evaluation import metrics
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.experiments.export import RankedLists, rank_top_items, write_lists
from hellm_recbole.experiments.list_file import LISTS_FILE
from hellm_recbole.experiments.ranks_file import PhaseRanks, write_ranks
from hellm_recbole.experiments.results import RunResult, write_result
from tests.toy import Table
from tests.toy_records import toy_record


def make_ranks(scores: np.ndarray, split: Split) -> PhaseRanks:
    """Rank the test targets by [U + 1, I] scores."""
    table = Table(torch.from_numpy(scores))
    history = split.make_test_history()
    ranks = rank_targets(table, split.test, train=split.train, seen=history, block_users=16, who="toy")
    integers = {name: np.asarray(getattr(ranks, name), np.int32) for name in ("seen", "train", "none")}
    return PhaseRanks(
        user=split.user_tokens[ranks.user],
        item=split.item_tokens[ranks.item],
        rank=integers["seen"],
        rank_train=integers["train"],
        rank_none=integers["none"],
        history_length=np.ones(len(ranks.user), np.int32),
        item_count=np.ones(len(ranks.user), np.int32),
    )


def make_lists(scores: np.ndarray, split: Split, k: int) -> RankedLists:
    """List the k best items of each user by [U + 1, I] scores."""
    return rank_top_items(Table(torch.from_numpy(scores)), split, k, 16, "toy")


def draw_scores(split: Split, seed: int) -> np.ndarray:
    """Draw scores without ties, [U + 1, I]."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(split.n_items) for _ in range(split.n_users + 1)]).astype(np.float32)


def add_listed_run(
    results: Path, split: Split, scores: np.ndarray, *, k: int | None = None, **changes: Any
) -> tuple[Path, RunResult]:
    """Write a run with ranks, and with test lists of k items unless k is None; return its folder and its result."""
    ranks = make_ranks(scores, split)
    means = metrics.average_metrics(ranks.user, ranks.rank, (10, 20))
    fields = {"dataset": "toy", "split_hash": split.sha256, "n_candidates": split.n_items, **changes}
    record = toy_record(metrics={"valid": means, "test": means}, **fields)
    folder = results / "toy" / record.label / str(record.seed)
    write_ranks(folder, ranks, ranks)
    if k is not None:
        about = {"split_hash": split.sha256, "seed": str(record.seed), "k": str(k)}
        write_lists(folder / LISTS_FILE, make_lists(scores, split, k), split, about)
    write_result(folder, record)
    return folder, record
