from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError
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


@pytest.mark.parametrize("change", [lambda x: x + 1e9, lambda x: x * 1e300, lambda x: x * 1e-300])
def test_scores_that_float32_would_merge_keep_their_order(toy_split: Split, change: Callable[[Any], Any]) -> None:
    plain = np.random.default_rng(0).permuted(np.tile(np.arange(toy_split.n_items, dtype=np.float64), (60, 1)), axis=1)
    history, ranks = toy_split.make_test_history(), []
    for scores in (plain, change(plain)):
        scorer = make_scorer(scores, toy_split)
        found = rank_targets(scorer, toy_split.test, train=toy_split.train, seen=history, block_users=7, who="toy")
        ranks.append(found.seen)
    np.testing.assert_array_equal(ranks[0], ranks[1])


def test_scores_that_cannot_be_ranked_are_one_sentence(toy_split: Split) -> None:
    zeros = np.zeros((toy_split.n_users, toy_split.n_items))
    pairs = pd.DataFrame({"user_id": ["u1", "u2", "u1"], "item_id": ["i3", "i3", "i3"], "score": [1.0, 2.0, 3.0]})
    for scores, sentence in (
        (zeros.astype(complex), "the scores are of type complex128; give real numbers"),
        (zeros.astype(str), "the scores are of type <U32; give real numbers"),
        (zeros.astype(str).astype(object), "the scores are of type object; give real numbers"),
        ([[1.0], [1.0, 2.0]], "the scores are no table of numbers .* give rows of one length"),
        (pairs, "row 3 scores the item 'i3' for the user 'u1' again; give each pair one score"),
        (pairs.set_axis(["user_id", "score", "score"], axis=1), "the scores have two columns 'score'"),
    ):
        with pytest.raises(DataError, match=sentence):
            make_scorer(scores, toy_split)


def test_the_cutoffs_are_those_of_all_runs() -> None:
    assert read_evaluation_settings().cutoffs == (5, 10, 20)
