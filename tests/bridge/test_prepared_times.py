"""RecBole keeps the order of interactions of a prepared dataset, although it stores times as float32."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.prepare import prepare, read_dataset_settings, read_feature_settings
from hellm_recbole.data.split import split_dataset

N_USERS, N_ITEMS, LENGTH = 20, 15, 8
# Unit -> (first time, smallest step, largest step). Float32 cannot represent these steps. Float64 cannot represent the
# steps in nanoseconds.
STEPS = {
    "seconds": (1_600_000_000, 1, 30),
    "milliseconds": (1_600_000_000_000, 1_000, 9_000),
    "nanoseconds": (1_600_000_000_000_000_000, 1, 30),
}
KEYS = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    "state": "error",
    "gpu_id": "",
}


@pytest.fixture(autouse=True)
def isolate_recbole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate each test: RecBole writes to the current folder, reads the command line and sets this variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(params=STEPS)
def histories(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, list[str]]:
    """Write a shuffled dataset `Mine` to `tmp_path / dataset`, and return the items of each user, oldest first."""
    first, smallest_step, largest_step = STEPS[request.param]
    rng = np.random.default_rng(3)
    chosen = {f"u{user}": [f"i{i}" for i in rng.permutation(N_ITEMS)[:LENGTH]] for user in range(N_USERS)}
    rows = []
    for user, items in chosen.items():
        times = first + np.cumsum(rng.integers(smallest_step, largest_step, LENGTH))
        rows += [f"{user},{item},{time}" for item, time in zip(items, times, strict=True)]
    order = rng.permutation(len(rows))
    (tmp_path / "Mine.csv").write_text("\n".join(["user_id,item_id,timestamp", *(rows[row] for row in order)]) + "\n")
    settings = read_dataset_settings("Mine", "table", {"k_core": 0})
    prepare("Mine", tmp_path, settings, read_feature_settings({}), tmp_path / "dataset", fresh=False, progress=False)
    return chosen


def load_recbole_data(model: str, root: Path, **values: Any) -> tuple[Any, Any, tuple[Any, Any, Any]]:
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation

    if model == "GRU4Rec":
        values["train_neg_sample_args"] = None
    config = Config(model=model, dataset="Mine", config_dict={**KEYS, "data_path": str(root), **values})
    dataset = create_dataset(config)
    return config, dataset, data_preparation(config, dataset)


@pytest.mark.parametrize("model", ["GRU4Rec", "LightGCN"])
def test_recboles_targets_are_each_users_last_items(
    histories: dict[str, list[str]], tmp_path: Path, model: str
) -> None:
    _, dataset, (_, valid, test) = load_recbole_data(model, tmp_path / "dataset")
    for loader, position in ((valid, -2), (test, -1)):
        table = loader._dataset.inter_feat
        users = dataset.id2token("user_id", table["user_id"].numpy())
        items = dataset.id2token("item_id", table["item_id"].numpy())
        assert dict(zip(users, items, strict=True)) == {user: items[position] for user, items in histories.items()}


def test_our_own_targets_are_each_users_last_items(histories: dict[str, list[str]], tmp_path: Path) -> None:
    split = split_dataset(load_dataset(tmp_path / "dataset" / "Mine", modalities=None))
    found = zip(split.user_tokens[split.test.user], split.item_tokens[split.test.item], strict=True)
    assert dict(found) == {user: items[-1] for user, items in histories.items()}


@pytest.mark.parametrize("model", ["HellmLightGCN", "HellmSASRec"])
def test_our_models_in_recbole_have_the_split_of_the_command(
    histories: dict[str, list[str]], tmp_path: Path, model: str
) -> None:
    _, dataset, (train, _, _) = load_recbole_data(model, tmp_path / "dataset")
    split = train._dataset.split
    assert split.sha256 == split_dataset(load_dataset(tmp_path / "dataset" / "Mine", modalities=None)).sha256
    tokens = {
        str(dataset.id2token("user_id", user)): split.item_tokens[split.train.get_items(user)].tolist()
        for user in range(1, N_USERS + 1)
    }
    assert tokens == {user: items[:-2] for user, items in histories.items()}
