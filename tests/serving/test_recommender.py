"""What a recommender does with a model; tests/test_api.py tests it with every model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import SettingsError
from hellm_recbole.serving.dataset import LoadedDataset
from hellm_recbole.serving.recommender import Recommender
from hellm_recbole.types import Histories, IdArray
from tests.toy import Table


class CountingModel(nn.Module):
    """A model that scores the interactions that it is given, as ItemKNN does: each item by itself and the next one."""

    def score_interactions(self, interactions: sp.csr_matrix) -> Tensor:
        dense = torch.from_numpy(interactions.toarray())
        return (dense + torch.roll(dense, 1, dims=1) * 0.5)[:, 1:]


class CountingScorer:
    """Scorer of the runs of such a model: training interactions of the users that it was trained on."""

    def __init__(self, train: Histories, n_items: int) -> None:
        self.module, self.n_items = CountingModel(), n_items
        rows, items = train.repeat_users(), train.items
        shape = (train.n_users + 1, n_items + 1)
        self.train = sp.csr_matrix((np.ones(len(items), np.float32), (rows, items)), shape=shape)

    def prepare(self) -> None: ...

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        return self.module.score_interactions(self.train[user])


def make_recommender(dataset: Dataset, split: Split, scorer: Any, block: int = 7) -> Recommender:
    result: Any = SimpleNamespace(label="X", dataset="toy", seed=1, evaluated=True)
    config: Any = SimpleNamespace(evaluation=SimpleNamespace(eval_block_users=block))
    return Recommender(result, config, LoadedDataset(dataset, split, Path("dataset/toy")), scorer)


def test_lists_are_sorted_by_score_then_by_id(toy_dataset: Dataset, toy_split: Split) -> None:
    scores = torch.zeros(toy_split.n_users + 1, toy_split.n_items)
    scores[:, 30] = 2.0
    scores[:, [5, 20]] = 1.0
    model = make_recommender(toy_dataset, toy_split, Table(scores))
    lists = model.recommend(k=4, filter_seen=False)
    assert len(lists) == 4 * 60
    assert lists["item_id"][:4].tolist() == ["i31", "i6", "i21", "i1"]
    assert lists["score"][:4].tolist() == [2.0, 1.0, 1.0, 0.0]
    assert model.recommend([], k=4).empty
    assert model.recommend("u9", k=1)["user_id"].tolist() == ["u9"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"histories": [None]}, "history 0 is None, not a list; give a list"),
        ({"histories": 5}, "histories is 5, not a list"),
        ({"candidates": "i1"}, r"candidates is 'i1', not a list; give a list, such as \['i1'\]"),
        ({"candidates": []}, "candidates is empty; name at least one item"),
        ({"users": 5}, "users is 5, not a list"),
    ],
)
def test_a_value_in_place_of_a_list_is_one_sentence(
    toy_dataset: Dataset, toy_split: Split, arguments: dict[str, Any], sentence: str
) -> None:
    model = make_recommender(toy_dataset, toy_split, Table(torch.zeros(toy_split.n_users + 1, toy_split.n_items)))
    with pytest.raises(SettingsError, match=sentence):
        model.recommend(**arguments)


def test_a_model_of_fixed_users_reads_no_histories(toy_dataset: Dataset, toy_split: Split) -> None:
    one, two = torch.rand(toy_split.n_users + 1, toy_split.n_items), torch.ones(toy_split.n_users + 1, 40)
    assert not make_recommender(toy_dataset, toy_split, Table(one)).reads_histories
    assert make_recommender(toy_dataset, toy_split, Table(two)).reads_histories


def test_a_model_of_interactions_reads_new_histories_and_whole_ones(toy_dataset: Dataset, toy_split: Split) -> None:
    model = make_recommender(toy_dataset, toy_split, CountingScorer(toy_split.train, 40))
    assert model.reads_histories
    new = model.recommend(histories=[["i3", "i7"], ["i40"]], k=3, filter_seen=False)
    assert new["item_id"].tolist() == ["i3", "i7", "i4", "i40", "i1", "i2"]
    assert new["score"].tolist() == [1.0, 1.0, 0.5, 1.0, 0.0, 0.0]
    own = {f"u{user}": [f"i{item}" for item in toy_split.train.get_items(user)] for user in (1, 2)}
    as_in_test = model.recommend(["u1", "u2"], k=40, filter_seen=False, history="test")
    assert model.recommend(histories=own, k=40, filter_seen=False).equals(as_in_test)
    last = str(toy_split.item_tokens[toy_split.test.item[0]])
    scores = model.recommend(["u1"], k=40, filter_seen=False).set_index("item_id")["score"]
    assert scores[last] >= 1.0  # the whole history is read, the test item included
    assert as_in_test[as_in_test["user_id"] == "u1"].set_index("item_id")["score"][last] < 1.0


@pytest.mark.parametrize("n_histories", [0, 1, 61, 130])
def test_any_number_of_histories_gets_lists(toy_dataset: Dataset, toy_split: Split, n_histories: int) -> None:
    scores = torch.arange(40.0).expand(toy_split.n_users + 1, 40)
    model = make_recommender(toy_dataset, toy_split, Table(scores), block=96)
    lists = model.recommend(histories=[["i40", "i40"]] * n_histories, k=2)
    assert lists["user_id"].tolist() == [str(number) for number in range(n_histories) for _ in range(2)]
    assert lists["item_id"].tolist() == ["i39", "i38"] * n_histories
