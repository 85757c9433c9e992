from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.bridge import learner as recbole_learner
from hellm_recbole.bridge.learner import RecBoleLearner
from hellm_recbole.errors import DataError, ModelError, SettingsError, TrainingDiverged
from hellm_recbole.types import Histories, TrainData
from tests.bridge import toy
from tests.bridge.small_learner import CPU, USERS, build_learner, ignore_step


@pytest.fixture(autouse=True)
def change_to_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


def test_an_unknown_model_is_rejected() -> None:
    with pytest.raises(ModelError, match="RecBole has no model 'VBPR'"):
        RecBoleLearner("VBPR", toy.make_train_data(), toy.OURS, 0, CPU)


def test_our_training_settings_reach_recbole() -> None:
    learner = build_learner(
        "BPR", optimizer="adamw", learning_rate=0.02, weight_decay=0.3, clip_norm=1.5, batch_size=17
    )
    assert type(learner.optimizer) is torch.optim.AdamW
    assert learner.optimizer.param_groups[0]["lr"] == 0.02
    assert learner.optimizer.param_groups[0]["weight_decay"] == 0.3
    assert learner._config["clip_grad_norm"] == {"max_norm": 1.5}
    assert learner._loader.step == 17


def test_command_line_environment_and_folder_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--embedding_size=3", "--models=BPR"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    learner = build_learner("BPR")
    learner.train_epoch(1, 1, ignore_step)
    learner.prepare()
    learner.compute_scores(USERS[:2], toy.make_train_data().history)
    assert learner._config["embedding_size"] == 8
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["BPR", "NeuMF", "SGL"])
def test_general_models_see_our_interactions_and_never_a_known_negative(name: str) -> None:
    learner, data = build_learner(name), toy.make_train_data()
    known = set(zip(data.history.repeat_users().tolist(), data.history.items.tolist(), strict=True))
    pairwise = name != "NeuMF"
    seen, negatives = [], []
    for batch in learner._loader:
        user, item = batch["user_id"].tolist(), batch["item_id"].tolist()
        positive = [True] * len(user) if pairwise else (batch["label"] == 1).tolist()
        seen += [pair for pair, real in zip(zip(user, item, strict=True), positive, strict=True) if real]
        drawn = zip(user, batch["neg_item_id"].tolist(), strict=True) if pairwise else zip(user, item, strict=True)
        negatives += [pair for pair, real in zip(drawn, positive, strict=True) if pairwise or not real]
    assert sorted(seen) == sorted(known)
    assert len(negatives) == len(known)
    assert not known & set(negatives)
    assert min(item for _, item in negatives) >= 1


def test_sequential_models_see_our_prefixes_in_our_order() -> None:
    learner = build_learner("GRU4Rec", MAX_ITEM_LIST_LENGTH=4)
    found = []
    for batch in learner._loader:
        for user, item, items, length in zip(
            batch["user_id"].tolist(),
            batch["item_id"].tolist(),
            batch["item_id_list"].tolist(),
            batch["item_length"].tolist(),
            strict=True,
        ):
            assert items[length:] == [0] * (4 - length)
            found.append((user, items[:length], item))
    expected = [
        (user, items[max(0, end - 4) : end], items[end])
        for user, items in enumerate(toy.sequences(), start=1)
        for end in range(1, len(items))
    ]
    assert sorted(found) == sorted(expected)


def build_recbole_model(
    name: str, learner: RecBoleLearner, root: Path, monkeypatch: pytest.MonkeyPatch
) -> torch.nn.Module:
    """Build RecBole's model on a dataset that RecBole reads from files, with the parameters of `learner`."""
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.utils import get_model

    toy.write_atomic(root)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    values = {
        **toy.SMALL,
        "data_path": str(root),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "gpu_id": "",
        "MAX_ITEM_LIST_LENGTH": learner._config["MAX_ITEM_LIST_LENGTH"],
    }
    if name == "GRU4Rec":
        values["train_neg_sample_args"] = None
    config = Config(model=name, dataset="toy", config_dict=values)
    dataset = create_dataset(config)
    assert dataset.field2id_token["item_id"].tolist() == ["[PAD]"] + [f"i{i}" for i in range(1, dataset.item_num)]
    dataset._change_feat_format()
    model: torch.nn.Module = get_model(name)(config, dataset)
    model.load_state_dict(learner.module.state_dict())
    return model.eval()


@pytest.mark.parametrize("name", ["BPR", "LightGCN", "GRU4Rec"])
def test_scores_equal_those_of_recbole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole.data.interaction import Interaction

    learner, data = (
        build_learner(name, MAX_ITEM_LIST_LENGTH=5) if name == "GRU4Rec" else build_learner(name),
        toy.make_train_data(),
    )
    learner.train_epoch(1, 11, ignore_step)
    learner.prepare()
    model: Any = build_recbole_model(name, learner, tmp_path / "data", monkeypatch)
    for user in (1, 2, 17, toy.N_USERS):
        recent = data.history.get_items(user)[-5:].tolist()
        columns = {
            "user_id": torch.tensor([user]),
            "item_length": torch.tensor([len(recent)]),
            "item_id_list": torch.tensor([recent + [0] * (5 - len(recent))]),
        }
        with torch.no_grad():
            expected = model.full_sort_predict(Interaction(columns)).view(1, -1)[:, 1:]
        # Other batch sizes may sum in another order.
        torch.testing.assert_close(
            learner.compute_scores(np.array([user]), data.history), expected, atol=1e-6, rtol=1e-5
        )
    together = learner.compute_scores(USERS, data.history)
    assert together.shape == (toy.N_USERS, data.n_items)
    assert together.dtype == torch.float32
    alone = torch.cat([learner.compute_scores(USERS[index : index + 1], data.history) for index in range(len(USERS))])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_pop_counts_training_interactions_and_nothing_else() -> None:
    learner, data = build_learner("Pop"), toy.make_train_data()
    assert learner.one_pass
    assert learner.optimizer is None
    assert learner.train_epoch(1, 4, ignore_step) == {"loss": 0.0}
    learner.prepare()
    count = np.bincount(data.history.items, minlength=data.n_items + 1)[1:]
    expected = torch.tensor(count / count.max(), dtype=torch.float32).expand(3, -1)
    torch.testing.assert_close(learner.compute_scores(USERS[:3], data.history), expected, atol=0, rtol=0)


def test_itemknn_is_cosine_over_the_nearest_items() -> None:
    k = 5
    learner, data = build_learner("ItemKNN", k=k), toy.make_train_data()
    learner.train_epoch(1, 4, ignore_step)
    learner.prepare()
    dense = np.zeros((toy.N_USERS, data.n_items))
    dense[data.history.repeat_users() - 1, data.history.items - 1] = 1
    norm = np.sqrt((dense**2).sum(axis=0))
    cosine = (dense.T @ dense) / (np.outer(norm, norm) + 1e-6)
    np.fill_diagonal(cosine, 0)
    found = learner.compute_scores(USERS, data.history).numpy()
    for item in range(data.n_items):
        order = np.argsort(-cosine[:, item], kind="stable")
        edge = cosine[order[k - 1], item]
        if edge == cosine[order[k], item] and edge > 0:
            continue  # a tie at the k-th neighbour: either choice is right
        kept = np.where(np.isin(np.arange(data.n_items), order[:k]), cosine[:, item], 0)
        np.testing.assert_allclose(found[:, item], dense @ kept, atol=1e-5)


def test_models_without_full_ranking_score_each_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole.data.interaction import Interaction

    learner, data = build_learner("NeuMF"), toy.make_train_data()
    learner.prepare()
    monkeypatch.setattr(recbole_learner, "MAX_PAIRS_PER_CALL", 2 * data.n_items + 1)  # two users in a call
    found = learner.compute_scores(USERS[:5], data.history)
    model: Any = learner.module
    for user in range(5):
        for item in (1, 2, data.n_items):
            pair = Interaction({"user_id": torch.tensor([user + 1]), "item_id": torch.tensor([item])})
            assert found[user, item - 1].item() == pytest.approx(model.predict(pair).item(), abs=1e-6)


def test_sequential_scores_follow_the_given_history() -> None:
    learner, data = build_learner("GRU4Rec", MAX_ITEM_LIST_LENGTH=3), toy.make_train_data()
    learner.prepare()
    same_end = Histories.from_pairs(np.ones(4, dtype=np.int64), np.array([9, 4, 5, 6]), data.n_users)
    other_start = Histories.from_pairs(np.ones(4, dtype=np.int64), np.array([1, 4, 5, 6]), data.n_users)
    other_end = Histories.from_pairs(np.ones(4, dtype=np.int64), np.array([9, 4, 6, 5]), data.n_users)
    one = np.array([1])
    assert torch.equal(learner.compute_scores(one, same_end), learner.compute_scores(one, other_start))
    assert not torch.allclose(learner.compute_scores(one, same_end), learner.compute_scores(one, other_end))
    assert torch.isfinite(learner.compute_scores(np.array([2]), same_end)).all()  # a user without history


def test_prepare_clears_vectors_of_old_parameters() -> None:
    learner, data = build_learner("LightGCN"), toy.make_train_data()
    learner.prepare()
    before = learner.compute_scores(USERS, data.history).clone()
    state = {name: value * 2 for name, value in learner.module.state_dict().items()}
    learner.module.load_state_dict(state)
    learner.prepare()
    torch.testing.assert_close(learner.compute_scores(USERS, data.history), before * 4)


def test_the_seed_determines_the_parameters() -> None:
    one, same, other = (
        build_learner("BPR", seed=seed).module.state_dict()["user_embedding.weight"] for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_losses_are_reported_and_fall() -> None:
    learner = build_learner("BPR", learning_rate=0.05)
    steps_seen: list[tuple[int, int, float]] = []
    losses = [
        learner.train_epoch(epoch, epoch, lambda step, n, named: steps_seen.append((step, n, named["loss"])))["loss"]
        for epoch in range(1, 16)
    ]
    steps = len(learner._loader)
    assert [step for step, _, _ in steps_seen[:steps]] == list(range(1, steps + 1))
    assert {n for _, n, _ in steps_seen} == {steps}
    assert steps_seen[steps - 1][2] == losses[0]
    assert losses[-1] < 0.5 * losses[0]


def test_several_losses_have_separate_names(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = build_learner("BPR")
    original_loss: Any = learner.module.calculate_loss
    monkeypatch.setattr(
        learner.module, "calculate_loss", lambda batch: (original_loss(batch), 2 * original_loss(batch))
    )
    losses = learner.train_epoch(1, 1, ignore_step)
    assert list(losses) == ["loss_1", "loss_2"]
    assert losses["loss_2"] == pytest.approx(2 * losses["loss_1"])


def test_divergence_is_reported_with_epoch_and_step() -> None:
    learner = build_learner("BPR")
    with torch.no_grad():
        next(iter(learner.module.parameters())).fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="BPR: loss is nan in epoch 7, step 1; lower the learning rate"):
        learner.train_epoch(7, 1, ignore_step)
    with pytest.raises(TrainingDiverged, match=r"loss is nan in epoch 1, step 1; .* not at the learning rate"):
        learner.train_epoch(1, 1, ignore_step)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("GRU4Rec", {"loss_type": "BPR"}, "trains on sampled negatives; set train_neg_sample_args"),
        ("GRU4Rec", {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}, "should be None"),
        ("BPR", {"train_neg_sample_args": {"distribution": "best"}}, r"should in \['uniform', 'popularity'\]"),
        ("BPR", {"embedding_size": "many"}, "cannot be built with these settings"),
        ("BPR", {"optimizer": "sgdm"}, r"RecBole has no learner \(optimizer\) 'sgdm'"),
        ("SASRec", {"n_heads": 3}, "cannot be built with these settings"),
    ],
)
def test_invalid_settings_are_reported_in_one_line(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        build_learner(name, **changes)
    assert "\n" not in str(caught.value)


def test_a_user_with_all_items_has_no_negative() -> None:
    data = TrainData(2, 3, Histories.from_pairs(np.array([1, 1, 1, 2]), np.array([1, 2, 3, 1]), 2), {})
    with pytest.raises(DataError, match="interacted with every item"):
        build_learner("BPR", data=data)


def test_sequential_models_need_a_sequence() -> None:
    data = TrainData(2, 3, Histories.from_pairs(np.array([1, 2]), np.array([1, 2]), 2), {})
    with pytest.raises(DataError, match="no user has two training interactions"):
        build_learner("GRU4Rec", data=data)


def test_settings_that_break_a_constructor_are_reported() -> None:
    with pytest.raises(SettingsError, match=r"^RecBole's FEARec cannot be built with these settings: .* by zero"):
        build_learner("FEARec", n_layers=1)
