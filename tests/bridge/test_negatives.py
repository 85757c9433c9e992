"""Users with all items, items with all users, and sequences without masked items."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.bridge import recbole_models
from hellm_recbole.bridge.learner import RecBoleLearner
from hellm_recbole.errors import DataError, HellmError, SettingsError
from hellm_recbole.types import Histories, TrainData
from tests.bridge import toy

UNIFORM = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0}
POPULARITY = {**UNIFORM, "distribution": "popularity"}
PAIRS = {"loss_type": "BPR", "train_neg_sample_args": UNIFORM}


@pytest.fixture(autouse=True)
def isolate_recbole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate each test: RecBole writes to the current folder, reads the command line and sets this variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def build_learner(name: str, sequences: list[list[int]], n_items: int, **changes: Any) -> RecBoleLearner:
    user = np.repeat(np.arange(1, len(sequences) + 1), [len(items) for items in sequences])
    history = Histories.from_pairs(user, np.concatenate([np.array(items) for items in sequences]), len(sequences))
    own = recbole_models.read_recbole_settings(name)
    small = {key: value for key, value in toy.SMALL.items() if key in own}
    values = {**own, **toy.OURS, **small, **changes}
    return RecBoleLearner(name, TrainData(len(sequences), n_items, history, {}), values, 3, torch.device("cpu"))


def train(learner: RecBoleLearner, epochs: int = 2) -> list[float]:
    return [learner.train_epoch(epoch, epoch, lambda *args: None)["loss"] for epoch in range(1, epochs + 1)]


EVERY_ITEM = [[1, 2, 3, 4, 1, 2, 3, 4], [1, 2, 3], [4, 2, 1]]  # of four items


def test_bert4rec_trains_on_a_user_with_every_item_if_it_samples_no_negatives() -> None:
    losses = train(build_learner("BERT4Rec", EVERY_ITEM, 4, mask_ratio=0.5))
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)


def test_bert4rec_reports_a_user_without_negatives_before_training() -> None:
    with pytest.raises(DataError, match=r"^BERT4Rec: a user has interacted with every item .* set loss_type to CE"):
        build_learner("BERT4Rec", EVERY_ITEM, 4, **PAIRS)
    assert train(build_learner("BERT4Rec", EVERY_ITEM, 5, mask_ratio=0.5, **PAIRS))


@pytest.mark.parametrize("name", ["BPR", "NeuMF"])
def test_pairwise_models_report_a_user_without_negatives(name: str) -> None:
    with pytest.raises(DataError, match=r"^a user has interacted with every item .*; remove such users$"):
        build_learner(name, EVERY_ITEM, 4)
    assert train(build_learner(name, EVERY_ITEM, 5))


def test_sampling_by_popularity_uses_only_training_items() -> None:
    """Item 5 is in no training interaction, so RecBole would sample forever for the first user."""
    with pytest.raises(DataError, match=r"so no negative item exists for this user; .*distribution: uniform"):
        build_learner("BPR", EVERY_ITEM, 5, train_neg_sample_args=POPULARITY)
    assert train(build_learner("BPR", [*EVERY_ITEM, [5, 1]], 5, train_neg_sample_args=POPULARITY))


def test_a_sequential_model_needs_an_item_besides_the_positive_one() -> None:
    with pytest.raises(DataError, match="no negative item"):
        build_learner("FPMC", [[1, 1, 1]], 1)
    assert train(build_learner("FPMC", EVERY_ITEM, 4))


def test_line_needs_a_user_without_interaction_for_each_item() -> None:
    with pytest.raises(DataError, match=r"LINE samples users who have not interacted with an item, but all users"):
        build_learner("LINE", [[1, 2], [2, 3], [2, 1]], 4)
    assert train(build_learner("LINE", [[1, 2], [2, 3], [3, 1]], 4), 4)


def test_a_batch_without_masked_items_has_loss_and_gradients_of_zero() -> None:
    learner = build_learner("BERT4Rec", [[1, 2, 3], [2, 3, 4, 1]], 9, batch_size=2)
    model: Any = learner.module
    batch = next(iter(learner._loader))
    batch["MASK_INDEX"][:] = 0
    loss = model.calculate_loss(batch)
    loss.backward()
    assert loss.item() == 0.0
    assert all(float(value.grad.abs().max()) == 0.0 for value in model.parameters() if value.grad is not None)
    with torch.no_grad():
        model.item_embedding.weight.fill_(math.nan)
    assert math.isnan(model.calculate_loss(batch).item())


def test_bert4rec_trains_if_some_batches_have_no_masked_item() -> None:
    losses = train(build_learner("BERT4Rec", [[1, 2, 3]] * 5, 9, batch_size=1), epochs=4)
    assert all(math.isfinite(loss) for loss in losses)
    assert max(losses) > 0


def test_bert4rec_needs_a_sequence_of_two_items() -> None:
    with pytest.raises(DataError, match="one user must have three training interactions"):
        build_learner("BERT4Rec", [[1, 2], [3, 4]], 9)


def test_bert4rec_needs_a_mask_of_at_least_one_item() -> None:
    message = r"mask_ratio = 0\.2 of MAX_ITEM_LIST_LENGTH = 4 items is less than one item"
    with pytest.raises(SettingsError, match=message):
        build_learner("BERT4Rec", EVERY_ITEM, 9, MAX_ITEM_LIST_LENGTH=4)


@pytest.mark.parametrize("name", ["BPR", "BERT4Rec"])
def test_training_through_recboles_entry_point_ends_or_is_rejected(name: str, tmp_path: Path) -> None:
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
