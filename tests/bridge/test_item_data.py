"""Features and texts of items reach our models in RecBole in the order of RecBole's ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.bridge.item_data import add_item_data
from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError
from hellm_recbole.types import Histories, TrainData
from tests.toy import write_prepared


class Reads:
    """Settings of a model that reads features and texts."""

    modalities = None
    item_text_tokens = 4


def add(folder: Path, tokens: list[str], name: str = "toy", settings: Any = Reads) -> TrainData:
    pairs = np.ones(1, dtype=np.int64)
    data = TrainData(1, len(tokens), Histories.from_pairs(pairs, pairs, 1), {})
    config = {"data_path": str(folder), "dataset": name, "checkpoint_dir": "saved"}
    return add_item_data(data, config, np.array(["", *tokens]), REGISTRY["VBPR"], settings)


def test_features_are_found_by_token(tmp_path: Path) -> None:
    np.save(tmp_path / "image_feat.npy", np.arange(6.0).reshape(3, 2))
    (tmp_path / "image_feat.tokens.txt").write_text("a\nb\nc\n")
    data = add(tmp_path, ["c", "a"])  # RecBole has filtered out b
    np.testing.assert_array_equal(data.features["image"], [[0, 0], [4, 5], [0, 1]])
    assert data.covered["image"].tolist() == [False, True, True]
    assert (data.item_text, data.cache) == ((), None)
    with pytest.raises(DataError, match="no row for"):
        add(tmp_path, ["d"])


def test_a_prepared_dataset_gives_what_the_command_reads(tmp_path: Path, toy_dataset: Dataset) -> None:
    texts = ("", *(f"title {number}" for number in range(toy_dataset.n_items)))
    write_prepared(tmp_path / "toy", replace(toy_dataset, item_text=texts))
    split = split_dataset(load_dataset(tmp_path / "toy", modalities=None))
    expected = split.make_train_data()
    data = add(tmp_path / "toy", split.item_tokens[1:].tolist())
    assert (data.item_text, data.cache) == (expected.item_text, expected.cache)
    assert data.features.keys() == expected.features.keys() == {"image", "text"}
    for name, values in expected.features.items():
        np.testing.assert_array_equal(data.features[name], values)
        np.testing.assert_array_equal(data.covered[name], expected.covered[name])


def test_a_model_gets_only_what_it_reads(tmp_path: Path, toy_dataset: Dataset) -> None:
    write_prepared(tmp_path / "toy", toy_dataset)
    data = add(tmp_path / "toy", toy_dataset.item_tokens[1:].tolist(), settings=object())
    assert (data.features, data.covered, data.item_text) == ({}, {}, ())


def test_the_packaged_movielens_has_texts() -> None:
    from recbole.config import configurator

    folder = Path(configurator.__file__).parents[1] / "dataset_example" / "ml-100k"
    reads_texts = type("TextsOnly", (), {"item_text_tokens": 4})
    data = add(folder, ["2", "1"], "ml-100k", reads_texts)
    assert [text.split()[0] for text in data.item_text[1:]] == ["GoldenEye.", "Toy"]
