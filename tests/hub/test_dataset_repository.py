from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from hellm_recbole.api import load_dataset
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import DataError, HubError
from hellm_recbole.hub.dataset_repository import prepare_dataset, push_prepared_dataset
from hellm_recbole.hub.pushing import PushOptions
from tests.hub.test_dataset_card import prepare
from tests.hub_server import Hub

OPTIONS = PushOptions("ada/shop", licence="cc-by-4.0")


def push(folder: Path, options: PushOptions = OPTIONS) -> None:
    with prepare_dataset(folder, options) as prepared:
        push_prepared_dataset(prepared, folder, options)


def test_a_pushed_dataset_is_the_same_after_it_was_fetched(tmp_path: Path, toy_dataset: Dataset, hub: Hub) -> None:
    folder = prepare(tmp_path / "dataset", toy_dataset)
    push(folder)
    files = hub.read("ada/shop", "datasets")
    assert files["README.md"].startswith(b"---\nlicense: cc-by-4.0\n")
    fetched = snapshot_download("ada/shop", repo_type="dataset", local_dir=tmp_path / "other" / "shop")
    assert load_dataset(Path(fetched)).split_hash == load_dataset(folder).split_hash
    push(folder)  # again


def test_another_content_is_not_replaced(tmp_path: Path, toy_dataset: Dataset, hub: Hub) -> None:
    folder = prepare(tmp_path, toy_dataset)
    hub.add("ada/shop", {"data.csv": b"1"}, "datasets")
    with pytest.raises(HubError, match=r"the dataset ada/shop exists and holds something else than shop \(data.csv\)"):
        push(folder)
    push(folder, PushOptions("ada/shop", licence="mit", fresh=True))
    assert "data.csv" in hub.read("ada/shop", "datasets")


def test_a_changed_file_is_refused(tmp_path: Path, toy_dataset: Dataset, hub: Hub) -> None:
    folder = prepare(tmp_path, toy_dataset)
    with (folder / "shop.inter").open("a") as stream:
        stream.write("u1\ti1\t9\n")
    with pytest.raises(DataError, match=r"shop.inter has changed since it was prepared"):
        push(folder)
    assert hub.repositories == {}
