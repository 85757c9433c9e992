"""MRR, hit rate and MAP: cases by hand, a slow reference with ties, and other libraries."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hellm_recbole.config.metric_names import MetricName, parse_metric_names
from hellm_recbole.evaluation.metrics import compute_per_user
from hellm_recbole.evaluation.rank_metrics import compute_rank_metrics

NAMES = parse_metric_names("MRR,MRR@3,HR@1,HR@3,MAP@1,MAP@3,MAP@10")


def compute(ranks: dict[str, list[int]]) -> dict[str, list[float]]:
    user = np.repeat(list(ranks), [len(values) for values in ranks.values()])
    users, values = compute_rank_metrics(user, np.concatenate([*ranks.values()]), NAMES)
    assert users.tolist() == sorted(ranks)
    return {name: value.tolist() for name, value in values.items()}


def average_slowly(ranks: list[int], name: MetricName) -> Fraction:
    """Compute a metric of one user from its definition, target by target."""
    k = max(ranks) if name.k is None else name.k
    if name.kind == "HR":
        return Fraction(any(rank <= k for rank in ranks))
    if name.kind == "MRR":
        return max(Fraction(1, rank) if rank <= k else Fraction(0) for rank in ranks)
    found, total = 0, Fraction(0)
    for rank in sorted(ranks):
        found += 1
        if rank <= k:
            total += Fraction(found, rank)
    return total / min(len(ranks), k)


def list_ranks_slowly(scores: np.ndarray, targets: list[int]) -> list[int]:
    """Rank each target behind all items with at least its score."""
    return [sum(bool(score >= scores[target]) for score in scores) for target in targets]


def test_one_target_by_hand() -> None:
    values = compute({"a": [1], "b": [3], "c": [4]})
    assert values["MRR"] == [1, 1 / 3, 1 / 4]
    assert values["MRR@3"] == values["MAP@3"] == [1, 1 / 3, 0]
    assert values["HR@1"] == values["MAP@1"] == [1, 0, 0]
    assert values["HR@3"] == [1, 1, 0]
    assert values["MAP@10"] == values["MRR"]


def test_several_targets_by_hand() -> None:
    values = compute({"b": [5, 2], "a": [3, 1, 40], "c": [7, 9]})
    assert values["MRR"] == [1, 1 / 2, 1 / 7]
    assert values["HR@3"] == [1, 1, 0]
    assert values["MAP@1"] == [1, 0, 0]  # divided by min(3, 1), so a hit at the top is all that counts
    assert values["MAP@3"] == pytest.approx([(1 + 2 / 3) / 3, (1 / 2) / 2, 0], abs=1e-15)
    assert values["MAP@10"] == pytest.approx([(1 + 2 / 3) / 3, (1 / 2 + 2 / 5) / 2, (1 / 7 + 2 / 9) / 2], abs=1e-15)


def test_tied_targets_count_against_the_model() -> None:
    values = compute({"a": [2, 2], "b": [3, 3, 3]})
    assert values["MRR"] == [1 / 2, 1 / 3]
    assert values["HR@1"] == [0, 0]
    assert values["MAP@10"] == pytest.approx([3 / 4, (1 / 3 + 2 / 3 + 1) / 3], abs=1e-15)
    assert values["MAP@1"] == [0, 0]


@pytest.mark.parametrize("seed", range(100))
def test_random_scores_with_ties_equal_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_users, n_items = int(rng.integers(1, 12)), int(rng.integers(3, 30))
    ranks = {}
    for user in range(n_users):
        scores = rng.integers(0, int(rng.choice([2, 6, 1000])), n_items)
        targets = rng.permutation(n_items)[: rng.integers(1, 4)].tolist()
        ranks[f"u{user:02d}"] = list_ranks_slowly(scores, targets)
    names = (*NAMES, MetricName("MAP", 2), MetricName("MRR", 50))
    shuffled = rng.permutation(sum(map(len, ranks.values())))
    user = np.repeat(list(ranks), [len(values) for values in ranks.values()])[shuffled]
    rank = np.concatenate([*ranks.values()])[shuffled].astype(np.int32)
    users, values = compute_rank_metrics(user, rank, names)
    for name in names:
        expected = [float(average_slowly(ranks[one], name)) for one in users.tolist()]
        assert values[str(name)].tolist() == pytest.approx(expected, abs=1e-14), str(name)


def test_relations_with_recall() -> None:
    rng = np.random.default_rng(3)
    names = parse_metric_names("HR@10,MAP@10,MRR@10")
    for n_targets in (1, 4):
        user, rank = np.repeat(np.arange(500), n_targets), rng.integers(1, 40, 500 * n_targets)
        _, values = compute_rank_metrics(user, rank, names)
        recall = compute_per_user(user, rank, [10])[1]["R@10"]
        if n_targets == 1:
            assert np.array_equal(values["HR@10"], recall)
            assert np.array_equal(values["MAP@10"], values["MRR@10"])
        assert np.array_equal(values["HR@10"], (recall > 0).astype(float))
        assert (values["MRR@10"] <= values["HR@10"]).all()
        assert all((0 <= value).all() and (value <= 1).all() for value in values.values())


def make_runs() -> tuple[dict[str, Any], dict[str, Any], np.ndarray, np.ndarray]:
    """Make 100 cases of 10 users with 1 to 4 targets and no ties: qrels, run, and user and rank of each target."""
    qrels: dict[str, Any] = {}
    run: dict[str, Any] = {}
    user, rank = [], []
    for number in range(1000):
        rng = np.random.default_rng([number // 10, number])
        scores = rng.permutation(40)
        targets = rng.permutation(40)[: rng.integers(1, 5)].tolist()
        name = f"u{number:03d}"
        run[name] = {f"i{item:02d}": float(score) for item, score in enumerate(scores.tolist())}
        qrels[name] = {f"i{item:02d}": 1 for item in targets}
        user += [name] * len(targets)
        rank += list_ranks_slowly(scores, targets)
    return qrels, run, np.array(user), np.array(rank)


@pytest.mark.slow
def test_equal_to_ranx_user_by_user() -> None:
    """`ranx` divides the average precision by n; at K >= n this is our min(n, K)."""
    ranx = pytest.importorskip("ranx", reason="ranx is not installed")
    qrels, run, user, rank = make_runs()
    names = {"MRR": "mrr", "MRR@5": "mrr@5", "HR@5": "hit_rate@5", "MAP@5": "map@5", "MAP@20": "map@20"}
    _, values = compute_rank_metrics(user, rank, parse_metric_names(",".join(names)))
    theirs = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), [*names.values()], return_mean=False)
    for name, value in values.items():
        assert value == pytest.approx(theirs[names[name]], abs=1e-12), name


@pytest.mark.slow
def test_equal_to_ir_measures_user_by_user() -> None:
    """`ir_measures` has Success for the hit rate; it divides the average precision by n."""
    ir_measures = pytest.importorskip("ir_measures", reason="ir-measures is not installed")
    qrels, run, user, rank = make_runs()
    names = {"MRR": "RR", "MRR@5": "RR@5", "HR@5": "Success@5", "MAP@5": "AP@5", "MAP@20": "AP@20"}
    users, values = compute_rank_metrics(user, rank, parse_metric_names(",".join(names)))
    wanted = {ir_measures.parse_measure(other): name for name, other in names.items()}
    rows = {one: row for row, one in enumerate(users.tolist())}
    theirs = {name: np.full(len(users), np.nan) for name in names}
    for metric in ir_measures.iter_calc([*wanted], qrels, run):
        theirs[wanted[metric.measure]][rows[metric.query_id]] = metric.value
    for name, value in values.items():
        assert value == pytest.approx(theirs[name], abs=1e-9), name
