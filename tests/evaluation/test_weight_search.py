"""The search of weights against a brute force that ranks every point with `rank_targets`."""

from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.errors import TrainingDiverged
from hellm_recbole.evaluation.combined_scores import CombinedScorer
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.evaluation.weight_search import list_product, list_simplex, search_weights
from hellm_recbole.types import Histories, Targets
from tests.evaluation.test_combined_scores import Fixed

N_USERS, N_ITEMS = 30, 25


def draw_data(seed: int) -> tuple[list[Fixed], Targets, Histories]:
    """Draw terms with many ties, targets of which some users have several, and histories that hold some of them."""
    rng = np.random.default_rng(seed)
    terms = [Fixed(rng.integers(-2, 3, (N_USERS + 1, N_ITEMS)).astype(np.float32) / 4) for _ in range(4)]
    user = np.sort(rng.integers(1, N_USERS + 1, 40))
    targets = Targets(user, rng.integers(1, N_ITEMS + 1, len(user)))
    history = Histories.from_pairs(rng.integers(1, N_USERS + 1, 90), rng.integers(1, N_ITEMS + 1, 90), N_USERS)
    return terms, targets, history


@pytest.mark.parametrize("has_first", [True, False])
@pytest.mark.parametrize("block_users", [5, 96])
def test_the_search_equals_a_brute_force_with_rank_targets(has_first: bool, block_users: int) -> None:
    (first, *others), targets, history = draw_data(3)
    points = list_product([[0.0, 1.0, 2.0], [0.0, 0.3], [0.0, 0.1, 0.7]])
    found = search_weights(
        first if has_first else None, others, points, targets, history,
        block_users=block_users, cutoffs=[3, 5], metric="N@5", who="x",
    )  # fmt: skip
    values = []
    for point in points:
        scorer = CombinedScorer(first if has_first else None, others, point, N_ITEMS)
        ranks = rank_targets(scorer, targets, train=history, seen=history, block_users=7, who="x")
        values.append(average_metrics(ranks.user, ranks.seen, [5])["N@5"])
        if point == found.weights:
            for policy in ("seen", "train", "none"):
                assert getattr(found.ranks, policy).tolist() == getattr(ranks, policy).tolist()
    assert found.values.tolist() == values
    assert len({*values}) > 3
    assert found.weights == points[int(np.argmax(values))]


def test_a_fusion_searches_the_simplex() -> None:
    terms, targets, history = draw_data(4)
    points = list_simplex(3, 4)
    assert len(points) == len({*points}) == 15
    assert all(sum(point) == pytest.approx(1.0) for point in points)
    found = search_weights(None, terms[:3], points, targets, history, block_users=8, cutoffs=[5], metric="R@5", who="x")
    scorer = CombinedScorer(None, terms[:3], found.weights, N_ITEMS)
    ranks = rank_targets(scorer, targets, train=history, seen=history, block_users=8, who="x")
    assert average_metrics(ranks.user, ranks.seen, [5])["R@5"] == found.values.max()
    alone = [found.values[points.index(corner)] for corner in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))]
    assert found.values.max() >= max(alone)


def test_progress_counts_all_users_and_nan_is_refused() -> None:
    terms, targets, history = draw_data(5)
    done: list[int] = []
    words = {"block_users": 4, "cutoffs": [5], "metric": "N@5", "who": "Row on toy"}
    search_weights(terms[0], terms[1:2], [(1.0,)], targets, history, report=done.append, **words)  # type: ignore[arg-type]
    assert sum(done) == len({*targets.user.tolist()})
    terms[1].values[int(targets.user[3]), 2] = np.nan
    with pytest.raises(TrainingDiverged, match=f"Row on toy: score of user id {targets.user[3]} is NaN"):
        search_weights(terms[0], terms[1:2], [(0.0,)], targets, history, **words)  # type: ignore[arg-type]
