"""Files of extras beside toy runs, for the tests of their tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hellm_recbole.evaluation.sampled_ranking import Candidates
from hellm_recbole.experiments.extra_files import HeldOut, RatedScores, SampledRanks, write_rated, write_sampled
from hellm_recbole.system.files import sha256_file
from tests.toy_records import add_run, toy_ranks

N_USERS = 10
CANDIDATES = Candidates("uniform", 50, 2024)


def add_toy_run(results: Path, full: Sequence[int], **changes: Any) -> Path:
    """Write a run of ten users and return its folder."""
    return add_run(results, full, cutoffs=(1, 2), **changes).parent


def add_sampled(folder: Path, ranks: Sequence[int], candidates: Candidates = CANDIDATES, **changes: Any) -> None:
    """Write ranks among sampled items beside a run."""
    targets = toy_ranks(ranks)
    values: dict[str, Any] = {"negatives_sha256": "ab" * 32, "n_changed": 0, **changes}
    digest = sha256_file(folder / "ranks.npz")
    write_sampled(folder, SampledRanks(candidates, ranks_sha256=digest, user=targets.user, item=targets.item,
                                       rank=np.asarray(ranks, dtype=np.int32), **values))  # fmt: skip


def add_rated(
    folder: Path, user: Sequence[str], rating: Sequence[float], score: Sequence[float], held_out: HeldOut = "both"
) -> None:
    """Write scores of rated items beside a run; the ranks are in the order of the scores of each user alone."""
    users, scores = np.array(user), np.array(score, dtype=np.float64)
    rank = [int((scores[users == one] >= value).sum()) for one, value in zip(users, scores, strict=True)]
    items = np.array([f"i{number}" for number in range(len(users))])
    digest = sha256_file(folder / "ranks.npz")
    write_rated(folder, RatedScores(held_out, digest, 0, users, items, np.array(rating, dtype=np.float64), scores,
                                    np.array(rank, dtype=np.int32)))  # fmt: skip
