"""Comparison of our ranks and metrics with those of RecBole's evaluator on the same scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.config.metric_names import parse_metric_names
from hellm_recbole.evaluation.list_metrics import (
    TopLists,
    compute_coverage,
    compute_gini,
    compute_popularity,
    count_items,
)
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.rank_metrics import compute_rank_metrics
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.types import Histories, Targets
from tests.toy import Table

pytest.importorskip("recbole", reason="RecBole is not installed")

N_USERS, N_ITEMS, CUTOFFS = 300, 120, [5, 10, 20]


def compute_recbole_metrics(
    scores: torch.Tensor,
    history: Histories,
    targets: Targets,
    metrics: Sequence[str] = ("Recall", "NDCG"),
    counts: Mapping[int, int] | None = None,
) -> dict[str, float]:
    """Compute metrics from a score matrix [U + 1, I] with RecBole's trainer and evaluator.

    `counts` has the training interactions of each item, for metrics of lists. RecBole would count its padding as an
    item; here it is given the number of items.
    """
    from recbole.evaluator import Collector, Evaluator
    from recbole.utils import EvaluatorType

    class Settings(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            return self.get(key)

    config = Settings(
        eval_args={"mode": {"valid": "full", "test": "full"}},
        metrics=list(metrics),
        topk=CUTOFFS,
        metric_decimal_place=16,
        eval_type=EvaluatorType.RANKING,
        device="cpu",
    )
    users = np.unique(targets.user)
    row = {int(user): index for index, user in enumerate(users)}
    matrix = torch.cat([torch.full((len(users), 1), -torch.inf), scores[torch.from_numpy(users)]], dim=1)
    for index, user in enumerate(users):
        matrix[index, torch.from_numpy(history.get_items(int(user)))] = -torch.inf
    collector: Any = Collector(config)
    positive_user = torch.tensor([row[int(user)] for user in targets.user])
    collector.eval_batch_collect(matrix, None, positive_user, torch.from_numpy(targets.item))
    collected = collector.get_data_struct()
    if counts is not None:
        collected.set("data.num_items", scores.shape[1])
        collected.set("data.count_items", Counter(counts))
    return dict(Evaluator(config).evaluate(collected))


@pytest.mark.parametrize("n_targets", [1, 3])
def test_recall_and_ndcg_equal_those_of_recbole(n_targets: int) -> None:
    rng = np.random.default_rng(n_targets)
    # a permutation for each user, so that all scores of a user differ
    table = torch.from_numpy(np.stack([rng.permutation(N_ITEMS) for _ in range(N_USERS + 1)]).astype(np.float32))
    picks = np.stack([rng.permutation(N_ITEMS)[: n_targets + 6] + 1 for _ in range(N_USERS)])
    users = np.arange(1, N_USERS + 1)
    targets = Targets(np.repeat(users, n_targets), picks[:, :n_targets].ravel())
    history = Histories.from_pairs(np.repeat(users, 6), picks[:, n_targets:].ravel(), N_USERS)
    ranks = rank_targets(Table(table), targets, train=history, seen=history, block_users=64, who="x")
    ours = average_metrics(ranks.user, ranks.seen, CUTOFFS)
    theirs = compute_recbole_metrics(table, history, targets)
    for k in CUTOFFS:
        assert ours[f"R@{k}"] == pytest.approx(theirs[f"recall@{k}"], abs=1e-12)
        assert ours[f"N@{k}"] == pytest.approx(theirs[f"ndcg@{k}"], abs=1e-12)
        assert 0 < ours[f"R@{k}"] < 1


@pytest.mark.parametrize("n_targets", [1, 3, 8])
def test_further_metrics_equal_those_of_recbole(n_targets: int) -> None:
    rng = np.random.default_rng(n_targets)
    table = torch.from_numpy(np.stack([rng.permutation(N_ITEMS) for _ in range(N_USERS + 1)]).astype(np.float32))
    picks = np.stack([rng.permutation(N_ITEMS)[: n_targets + 6] + 1 for _ in range(N_USERS)])
    users = np.arange(1, N_USERS + 1)
    targets = Targets(np.repeat(users, n_targets), picks[:, :n_targets].ravel())
    history = Histories.from_pairs(np.repeat(users, 6), picks[:, n_targets:].ravel(), N_USERS)
    ranks = rank_targets(Table(table), targets, train=history, seen=history, block_users=64, who="x")
    counts = count_items(history, N_ITEMS)
    theirs = compute_recbole_metrics(
        table,
        history,
        targets,
        ["MRR", "Hit", "MAP", "ItemCoverage", "GiniIndex", "AveragePopularity"],
        dict(enumerate(counts.interactions.tolist())),
    )
    masked = table.clone()
    masked[history.repeat_users(), history.items - 1] = -torch.inf
    best = masked[1:].topk(max(CUTOFFS)).indices.numpy() + 1
    owner, place = np.indices(best.shape)
    lists = TopLists(owner.ravel(), place.ravel() + 1, best.ravel(), N_USERS, N_ITEMS)
    for k in CUTOFFS:
        _, ours = compute_rank_metrics(ranks.user, ranks.seen, parse_metric_names(f"MRR@{k},HR@{k},MAP@{k}"))
        for name, other in {"MRR": "mrr", "HR": "hit", "MAP": "map"}.items():
            assert ours[f"{name}@{k}"].mean() == pytest.approx(theirs[f"{other}@{k}"], abs=1e-12)
        cut = lists.cut(k)
        assert compute_coverage(cut) == pytest.approx(theirs[f"itemcoverage@{k}"], abs=1e-12)
        assert compute_gini(cut) == pytest.approx(theirs[f"giniindex@{k}"], abs=1e-12)
        assert compute_popularity(cut, counts).mean() == pytest.approx(theirs[f"averagepopularity@{k}"], abs=1e-9)


def test_a_constant_scorer_has_metrics_of_zero() -> None:
    targets = Targets(np.arange(1, N_USERS + 1), np.arange(N_USERS) % N_ITEMS + 1)
    empty = Histories(np.zeros(N_USERS + 2, dtype=np.int64), np.zeros(0, dtype=np.int64))
    table = torch.zeros(N_USERS + 1, N_ITEMS)
    ranks = rank_targets(Table(table), targets, train=empty, seen=empty, block_users=64, who="x")
    assert set(average_metrics(ranks.user, ranks.seen, CUTOFFS).values()) == {0.0}
