"""Extras of runs that are trained, saved and loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hellm_recbole.api import Results, load_dataset, load_run, run, train_all
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import DataError, ModelError, SettingsError
from hellm_recbole.evaluation.sampled_ranking import Candidates
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.serving.extras import Negatives, join_targets, rank_among_sampled, score_rated_items
from hellm_recbole.serving.recommender import Recommender
from tests.serving.small_results import SMALL
from tests.toy import write_prepared


def rate(dataset: Dataset) -> np.ndarray:
    return 1 + np.arange(dataset.n_interactions) * 7 % 5


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset) -> Results:
    folder = tmp_path_factory.mktemp("extras")
    write_prepared(folder / "dataset" / "toy", toy_dataset, rate(toy_dataset))
    loaded = load_dataset(folder / "dataset" / "toy")
    models = ["Pop", "LightGCN", "SASRec", "Pop-priors"]
    return run(models, loaded, settings=SMALL, device="cpu", output=folder / "results")


def score_test_items(model: Recommender) -> np.ndarray:
    """Score all items for all users with the history of the test phase, [U, I]."""
    split = model.dataset.split
    model.scorer.prepare()
    with torch.no_grad():
        return model.scorer.compute_scores(np.arange(1, split.n_users + 1), split.make_test_history()).numpy().copy()


@pytest.mark.parametrize("name", ["Pop", "LightGCN", "SASRec", "Pop-priors"])
def test_sampled_ranks_are_those_of_the_saved_scores(results: Results, name: str) -> None:
    model = results[name].load()
    split = model.dataset.split
    drawn = [
        Negatives(model.dataset, Candidates("uniform", 9, 1)),
        Negatives(model.dataset, Candidates("popularity", 5, 2)),
    ]
    found = rank_among_sampled(model, drawn)
    scores = score_test_items(model)
    saved = read_ranks(results[name].folder / "ranks.npz")["test"]
    for ranks, negatives in zip(found, drawn, strict=True):
        assert ranks.n_changed == 0
        assert ranks.user.tolist() == saved.user.tolist()
        assert ranks.item.tolist() == saved.item.tolist()
        expected = [
            1 + sum(scores[user - 1, other - 1] >= scores[user - 1, item - 1] for other in others)
            for user, item, others in zip(split.test.user, split.test.item, negatives.items, strict=True)
        ]
        assert ranks.rank.tolist() == expected
        assert ranks.candidates == negatives.candidates
        assert (ranks.rank <= saved.rank).all()  # some of the items that score higher were not drawn


def test_all_models_get_the_same_items_which_follow_the_training_part(results: Results) -> None:
    candidates = Candidates("popularity", 20, 3)
    one, other = (Negatives(results[name].load().dataset, candidates) for name in ("Pop", "SASRec"))
    assert one.sha256 == other.sha256
    split = one.dataset.split
    history = split.make_test_history()
    for user, items in zip(split.test.user, one.items, strict=True):
        assert not {*history.get_items(int(user)).tolist()} & {*items.tolist()}
    mean = np.bincount(split.train.items, minlength=split.n_items + 1)[one.items].mean()
    assert mean > np.bincount(split.train.items, minlength=split.n_items + 1)[1:].mean()
    with pytest.raises(SettingsError, match="60 uniform candidates cannot be drawn"):
        rank_among_sampled(results["Pop"].load(), [Negatives(one.dataset, Candidates("uniform", 60, 3))])


@pytest.mark.parametrize("name", ["Pop", "SASRec"])
def test_rated_items_have_their_scores_and_ratings(results: Results, toy_dataset: Dataset, name: str) -> None:
    model = results[name].load()
    split = model.dataset.split
    found = score_rated_items(model, "rating", "test")
    scores = score_test_items(model)
    expected = scores[split.test.user - 1, split.test.item - 1]
    assert found.score.tolist() == expected.astype(np.float64).tolist()
    assert found.n_changed == 0
    saved = read_ranks(results[name].folder / "ranks.npz")
    assert found.rank.tolist() == saved["test"].rank.tolist()
    users, items = (
        tokens[ids]
        for tokens, ids in zip(
            (toy_dataset.user_tokens, toy_dataset.item_tokens), (toy_dataset.user, toy_dataset.item), strict=True
        )
    )
    ratings = dict(zip(zip(users.tolist(), items.tolist(), strict=True), rate(toy_dataset).tolist(), strict=True))
    assert found.rating.tolist() == [
        ratings[pair] for pair in zip(found.user.tolist(), found.item.tolist(), strict=True)
    ]

    both = score_rated_items(model, "rating", "both")
    assert len(both.user) == len(split.valid) + len(split.test)
    assert both.user.tolist() == sorted(both.user.tolist(), key=split.user_tokens.tolist().index)
    first = both.rank[::2]  # each user has a validation item and then a test item
    assert first.tolist() == saved["valid"].rank.tolist()
    assert both.n_changed == 0
    if name == "SASRec":  # its scores depend on the history, which ends before the validation item
        assert both.score[1::2].tolist() != found.score.tolist()


def test_other_weights_are_noticed(results: Results) -> None:
    model = results["SASRec"].load()
    for parameter in model.scorer.module.parameters():  # type: ignore[attr-defined]
        parameter.data.mul_(-1.5)
    drawn = [Negatives(model.dataset, Candidates("uniform", 9, 1))]
    assert rank_among_sampled(model, drawn)[0].n_changed > 10
    assert score_rated_items(model, "rating", "test").n_changed > 10


def test_a_model_of_all_data_and_a_dataset_without_ratings_are_refused(results: Results) -> None:
    model = results["Pop"].load()
    with pytest.raises(DataError, match="no column 'stars'"):
        score_rated_items(model, "stars", "test")
    everything = load_run(train_all(results["Pop"].folder, dataset=model.dataset), dataset=model.dataset)
    with pytest.raises(ModelError, match="trained on all data"):
        score_rated_items(everything, "rating", "test")
    with pytest.raises(ModelError, match="trained on all data"):
        rank_among_sampled(everything, [Negatives(model.dataset, Candidates("uniform", 9, 1))])


def test_joined_targets_keep_the_order_of_the_parts(toy_split: object) -> None:
    from hellm_recbole.types import Targets

    joined = join_targets(Targets(np.array([1, 3]), np.array([5, 6])), Targets(np.array([2, 3]), np.array([8, 9])))
    assert joined.user.tolist() == [1, 2, 3, 3]
    assert joined.item.tolist() == [5, 8, 6, 9]
