"""Users who have every item, items that every user has, and sequences in which nothing is masked."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.bridge import learner as rows
from hellm_recbole.bridge.learner import RecBoleLearner
from hellm_recbole.errors import DataError, HellmError, SettingsError
from hellm_recbole.types import Histories, TrainData
from tests.bridge import toy

UNIFORM = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0}
POPULARITY = {**UNIFORM, "distribution": "popularity"}
PAIRS = {"loss_type": "BPR", "train_neg_sample_args": UNIFORM}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole writes into the current folder, reads the command line, and sets this variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def make(name: str, sequences: list[list[int]], n_items: int, **changes: Any) -> RecBoleLearner:
    user = np.repeat(np.arange(1, len(sequences) + 1), [len(items) for items in sequences])
    history = Histories.from_pairs(user, np.concatenate([np.array(items) for items in sequences]), len(sequences))
    own = rows.read_recbole_settings(name)
    small = {key: value for key, value in toy.SMALL.items() if key in own}
    values = {**own, **toy.OURS, **small, **changes}
    return RecBoleLearner(name, TrainData(len(sequences), n_items, history, {}), values, 3, torch.device("cpu"))


def train(row: RecBoleLearner, epochs: int = 2) -> list[float]:
    return [row.train_epoch(epoch, epoch, lambda *args: None)["loss"] for epoch in range(1, epochs + 1)]


EVERY_ITEM = [[1, 2, 3, 4, 1, 2, 3, 4], [1, 2, 3], [4, 2, 1]]  # of four items


def test_bert4rec_trains_on_a_user_with_every_item_where_it_draws_no_negative() -> None:
    losses = train(make("BERT4Rec", EVERY_ITEM, 4, mask_ratio=0.5))
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)


def test_bert4rec_says_before_training_that_a_user_has_no_negative() -> None:
    with pytest.raises(DataError, match=r"^BERT4Rec: a user has interacted with every item .* set loss_type to CE"):
        make("BERT4Rec", EVERY_ITEM, 4, **PAIRS)
    assert train(make("BERT4Rec", EVERY_ITEM, 5, mask_ratio=0.5, **PAIRS))


@pytest.mark.parametrize("name", ["BPR", "NeuMF"])
def test_pairs_say_in_our_words_that_a_user_has_no_negative(name: str) -> None:
    with pytest.raises(DataError, match=r"^a user has interacted with every item .*; drop such users$"):
        make(name, EVERY_ITEM, 4)
    assert train(make(name, EVERY_ITEM, 5))


def test_by_popularity_only_items_of_the_training_part_are_drawn() -> None:
    """Item 5 is in no training interaction, so RecBole would draw for ever for the first user."""
    with pytest.raises(DataError, match=r"so there is no negative for them; .*distribution: uniform"):
        make("BPR", EVERY_ITEM, 5, train_neg_sample_args=POPULARITY)
    assert train(make("BPR", [*EVERY_ITEM, [5, 1]], 5, train_neg_sample_args=POPULARITY))


def test_a_sequential_model_needs_an_item_beside_the_positive_one() -> None:
    with pytest.raises(DataError, match="no negative"):
        make("FPMC", [[1, 1, 1]], 1)
    assert train(make("FPMC", EVERY_ITEM, 4))


def test_line_needs_for_each_item_a_user_who_has_not_met_it() -> None:
    with pytest.raises(DataError, match=r"LINE draws users who have not met an item, and one item is met by every"):
        make("LINE", [[1, 2], [2, 3], [2, 1]], 4)
    assert train(make("LINE", [[1, 2], [2, 3], [3, 1]], 4), 4)


def test_a_batch_in_which_nothing_is_masked_has_no_loss_and_no_gradient() -> None:
    row = make("BERT4Rec", [[1, 2, 3], [2, 3, 4, 1]], 9, batch_size=2)
    model: Any = row.module
    batch = next(iter(row._loader))
    batch["MASK_INDEX"][:] = 0
    loss = model.calculate_loss(batch)
    loss.backward()
    assert loss.item() == 0.0
    assert all(float(value.grad.abs().max()) == 0.0 for value in model.parameters() if value.grad is not None)
    with torch.no_grad():
        model.item_embedding.weight.fill_(math.nan)
    assert math.isnan(model.calculate_loss(batch).item())


def test_bert4rec_trains_where_some_batches_have_no_masked_item() -> None:
    losses = train(make("BERT4Rec", [[1, 2, 3]] * 5, 9, batch_size=1), epochs=4)
    assert all(math.isfinite(loss) for loss in losses)
    assert max(losses) > 0


def test_bert4rec_needs_a_sequence_of_two_items() -> None:
    with pytest.raises(DataError, match="needs a user with three training interactions"):
        make("BERT4Rec", [[1, 2], [3, 4]], 9)


def test_bert4rec_needs_a_mask_of_one_item() -> None:
    message = r"mask_ratio = 0\.2 of MAX_ITEM_LIST_LENGTH = 4 items is not one item"
    with pytest.raises(SettingsError, match=message):
        make("BERT4Rec", EVERY_ITEM, 9, MAX_ITEM_LIST_LENGTH=4)


@pytest.mark.parametrize("name", ["BPR", "BERT4Rec"])
def test_through_recboles_own_entry_point_training_ends_or_is_refused(name: str, tmp_path: Path) -> None:
    from recbole.quick_start import run_recbole

    folder = tmp_path / "data" / "full"
    folder.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"u{user}\ti{time % 8}\t{time}" for user in range(8) for time in range(16 if user == 0 else 6)]
    (folder / "full.inter").write_text("\n".join(lines) + "\n")
    values = {
        "data_path": str(tmp_path / "data"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "state": "error",
        "show_progress": False,
        "epochs": 2,
        "topk": [3],
        "valid_metric": "MRR@3",
        "gpu_id": "",
    }
    if name == "BERT4Rec":
        values |= {"train_neg_sample_args": None, "MAX_ITEM_LIST_LENGTH": 20, "mask_ratio": 0.5, "hidden_size": 8}
        assert run_recbole(model=name, dataset="full", config_dict=values, saved=False)["test_result"]
    else:
        with pytest.raises((HellmError, ValueError), match=r"every item|all items"):
            run_recbole(model=name, dataset="full", config_dict=values, saved=False)


def test_s3rec_says_that_a_sequence_with_every_item_has_no_negative() -> None:
    from recbole.model.sequential_recommender.s3rec import S3Rec

    model = S3Rec.__new__(S3Rec)
    torch.nn.Module.__init__(model)
    model.n_items = 4  # with the padding
    assert model._neg_sample([1, 2, 2]) == 3
    with pytest.raises(DataError, match="S3Rec: a user has interacted with every item"):
        model._neg_sample([3, 1, 2])
