from __future__ import annotations

import numpy as np
import pandas as pd

from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.serving.given_scores import make_scorer, read_evaluation_settings


def test_a_pair_without_a_score_ranks_last(toy_split: Split) -> None:
    """Each user has a score for the target alone, or for another item alone."""
    targets = toy_split.test
    is_found = targets.user % 2 == 0
    item = np.where(is_found, targets.item, targets.item % toy_split.n_items + 1)
    users, items = toy_split.user_tokens[targets.user], toy_split.item_tokens[item]
    scorer = make_scorer(pd.DataFrame({"user_id": users, "item_id": items, "score": 1.0}), toy_split)
    history = toy_split.make_test_history()
    ranks = rank_targets(scorer, targets, train=toy_split.train, seen=history, block_users=7, who="toy")
    np.testing.assert_array_equal(ranks.none, np.where(is_found, 1, toy_split.n_items))


def test_a_function_gets_the_histories_that_a_model_reads(toy_split: Split) -> None:
    asked: dict[str, list[str]] = {}

    def score(users: list[str], histories: list[list[str]]) -> np.ndarray:
        asked.update(zip(users, histories, strict=True))
        return np.zeros((len(users), toy_split.n_items))

    history = toy_split.make_test_history()
    scorer = make_scorer(score, toy_split)
    scorer.compute_scores(np.array([2, 5]), history)
    assert asked == {f"u{user}": [f"i{item}" for item in history.get_items(user)] for user in (2, 5)}


def test_the_cutoffs_are_those_of_all_runs() -> None:
    assert read_evaluation_settings().cutoffs == (5, 10, 20)
