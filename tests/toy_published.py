"""Runs of a split without training, for tests of published runs: their ranks are those of random scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.experiments.ranks_file import PhaseRanks, write_ranks
from hellm_recbole.experiments.recording import build_phase_ranks, count_split
from hellm_recbole.experiments.results import RunResult, write_result
from hellm_recbole.system.files import sha256_file
from hellm_recbole.types import Histories, IdArray
from tests.toy import Table
from tests.toy_records import toy_record

CUTOFFS = (5, 10)


class _UserTable(Table):
    """A scorer with fixed scores of each user."""

    def compute_scores(self, user: IdArray, history: Histories) -> torch.Tensor:
        return self.table[torch.from_numpy(user)]


def rank_randomly(split: Split, seed: int) -> dict[str, PhaseRanks]:
    """Rank the targets of both phases by random scores."""
    scorer = _UserTable(torch.rand(split.n_users + 1, split.n_items, generator=torch.Generator().manual_seed(seed)))
    phases = {"valid": (split.valid, split.train), "test": (split.test, split.make_test_history())}
    return {
        phase: build_phase_ranks(
            rank_targets(scorer, targets, train=split.train, seen=seen, block_users=7, who="random"), split, seen
        )
        for phase, (targets, seen) in phases.items()
    }


def describe_random_run(split: Split, ranks: dict[str, PhaseRanks], **changes: Any) -> RunResult:
    """Build the result of a run with these ranks."""
    metrics: Any = {phase: average_metrics(each.user, each.rank, CUTOFFS) for phase, each in ranks.items()}
    return toy_record(
        **{
            "dataset": split.dataset,
            "counts": count_split(split),
            "split_kind": split.kind,
            "split_hash": split.sha256,
            "n_candidates": split.n_items,
            "cutoffs": CUTOFFS,
            "metrics": metrics,
            **changes,
        }
    )


def add_random_run(results: Path, split: Split, **changes: Any) -> RunResult:
    """Write the files of a run with random ranks, and return its result."""
    ranks = rank_randomly(split, changes.get("seed", 2024))
    result = describe_random_run(split, ranks, **changes)
    folder = results / result.dataset / result.label / str(result.seed)
    digest = sha256_file(write_ranks(folder, ranks["valid"], ranks["test"]))
    result = describe_random_run(split, ranks, **{"ranks_sha256": digest, **changes})
    write_result(folder, result)
    return result
