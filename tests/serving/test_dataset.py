from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError
from hellm_recbole.serving.dataset import LoadedDataset, find_ids
from tests.serving.small_results import prepare_toy


def test_the_parts_are_tables_of_tokens(toy_dataset: Dataset, toy_split: Split) -> None:
    data = LoadedDataset(toy_dataset, toy_split, Path("dataset/toy"))
    assert (data.name, data.split_hash, data.modalities) == ("toy", toy_split.sha256, ("image", "text"))
    assert data.counts["train"] == len(data.train)
    assert len(data.valid) == len(data.test) == data.counts["users"] == 60
    first = [*data.train["item_id"][data.train["user_id"] == "u1"], data.valid["item_id"][0], data.test["item_id"][0]]
    walk = toy_dataset.item_tokens[toy_dataset.item[toy_dataset.user == 1]]
    assert first == walk.tolist()
    assert data.users[:2] == ["u1", "u2"]
    assert data.items[-1] == "i40"
    assert repr(data).startswith("LoadedDataset(toy: 60 users, 40 items, 452 interactions, split ")
    shown = data._repr_html_()
    assert "60, 40" in shown
    assert f"leave-one-out, {toy_split.sha256[:12]}" in shown
    assert "&lt;b&gt;" in LoadedDataset(toy_dataset, toy_split, Path("<b>"))._repr_html_()


def test_the_findings_of_the_data_card_are_a_frame(tmp_path: Path, toy_dataset: Dataset) -> None:
    loaded = prepare_toy(tmp_path, toy_dataset)
    found = loaded.findings()
    assert [*found.columns] == ["severity", "finding", "figure", "effect"]
    assert "popularity" in {*found["finding"]}
    assert {*found["severity"]} <= {"error", "warning", "note"}


def test_unknown_tokens_are_named_once() -> None:
    known = np.array(["", "a", "b"])
    with pytest.raises(DataError, match=r"^toy has no items 'x', '1', 'c', 'd' and 1 more; leave them out$"):
        find_ids(["x", "a", 1, "x", "c", "d", "e"], known, "items", "toy")
