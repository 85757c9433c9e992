"""Prepared datasets in a storage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.stored_data import fetch_dataset, fetch_only_version, store_dataset
from hellm_recbole.errors import DataError
from hellm_recbole.system.storage import Storage, StorageError
from tests.toy import write_prepared


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "store").as_uri())


@pytest.fixture
def prepared(tmp_path: Path, toy_dataset: Dataset) -> Path:
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    return tmp_path / "dataset" / "toy"


def test_another_machine_gets_the_same_dataset(storage: Storage, prepared: Path, tmp_path: Path) -> None:
    (prepared / ".cache").mkdir()
    (prepared / ".cache" / "neighbors").touch()
    digest = store_dataset(storage, prepared)
    folder = fetch_dataset(storage, "toy", digest, tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in prepared.iterdir() if path.name != ".cache"
    }
    assert load_dataset(folder, modalities=None).n_items == 40
    (folder / "toy.inter").write_text("broken")  # what is broken in the cache is fetched again
    assert load_dataset(fetch_dataset(storage, "toy", digest, tmp_path / "cache"), modalities=None).n_items == 40


def test_a_dataset_is_put_there_once(storage: Storage, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_dataset(storage, prepared)
    monkeypatch.setattr(Storage, "upload", lambda *_: pytest.fail("uploaded again"))
    store_dataset(storage, prepared)


def test_a_dataset_that_has_changed_is_not_put_there(storage: Storage, prepared: Path) -> None:
    with (prepared / "toy.inter").open("a") as stream:
        stream.write("u1\ti2\t9\n")
    with pytest.raises(DataError, match=r"toy\.inter has changed since it was prepared, so it is not put into"):
        store_dataset(storage, prepared)


def test_a_digest_that_the_storage_does_not_have_is_refused(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="has no dataset toy with the digest 00000000"):
        fetch_dataset(storage, "toy", "0" * 64, tmp_path / "cache")


def test_a_machine_without_the_dataset_fetches_the_only_version(
    storage: Storage, prepared: Path, tmp_path: Path, toy_dataset: Dataset
) -> None:
    assert not fetch_only_version(storage, "toy", tmp_path / "new" / "toy")
    store_dataset(storage, prepared)
    assert fetch_only_version(storage, "toy", tmp_path / "new" / "toy")
    assert load_dataset(tmp_path / "new" / "toy", modalities=None).n_items == 40
    shutil.rmtree(prepared)
    write_prepared(prepared, toy_dataset, ratings=[5.0] * toy_dataset.n_interactions)
    store_dataset(storage, prepared)
    with pytest.raises(StorageError, match="has 2 versions of the dataset toy; prepare it on this machine, or remove"):
        fetch_only_version(storage, "toy", tmp_path / "newer" / "toy")
