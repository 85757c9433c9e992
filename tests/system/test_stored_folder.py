"""Folders in a storage: complete or not there, checked by digest, with one writer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hellm_recbole.system.files import seal
from hellm_recbole.system.storage import Storage, StorageError
from hellm_recbole.system.stored_folder import StoredFolder, list_visible_files


@pytest.fixture
def local(tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "record.json").write_text("1")
    (folder / "checkpoint" / "last").write_text("22")
    (folder / ".lock").write_text("hidden")
    return folder


@pytest.fixture
def stored(tmp_path: Path) -> StoredFolder:
    return StoredFolder(Storage((tmp_path / "store").as_uri()), "runs/toy")


def list_objects(tmp_path: Path) -> list[str]:
    return sorted(path.read_text() for path in (tmp_path / "store" / "runs" / "toy" / "objects").iterdir())


def test_a_folder_is_pulled_as_it_was_pushed(tmp_path: Path, stored: StoredFolder, local: Path) -> None:
    assert stored.pull(tmp_path / "other") is None
    assert not (tmp_path / "other").exists()
    stored.push(local, {"epoch": 3})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "old").touch()
    found = stored.pull(tmp_path / "other")
    assert found is not None
    assert found.state == {"epoch": 3}
    assert list_visible_files(tmp_path / "other") == ["checkpoint/last", "record.json"]
    assert (tmp_path / "other" / "checkpoint" / "last").read_text() == "22"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_files_that_the_next_manifest_does_not_name_are_removed(
    tmp_path: Path, stored: StoredFolder, local: Path
) -> None:
    stored.push(local, {})
    (local / "checkpoint" / "last").unlink()
    (local / "checkpoint" / "next").write_text("333")
    stored.push(local, {})
    assert list_objects(tmp_path) == ["1", "333"]


def test_a_push_that_breaks_off_leaves_the_folder_as_it_was(
    tmp_path: Path, stored: StoredFolder, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.push(local, {})
    (local / "a").write_text("new")
    (local / "record.json").write_text("changed")
    upload, n_uploads = Storage.upload, []

    def break_off(storage: Storage, source: Path, path: str) -> None:
        n_uploads.append(path)
        if len(n_uploads) == 2:
            raise StorageError("the network is down")
        upload(storage, source, path)

    monkeypatch.setattr(Storage, "upload", break_off)
    with pytest.raises(StorageError, match="the network is down"):
        stored.push(local, {})
    assert stored.pull(tmp_path / "other") is not None
    assert list_visible_files(tmp_path / "other") == ["checkpoint/last", "record.json"]
    assert (tmp_path / "other" / "record.json").read_text() == "1"


def test_a_file_that_is_not_what_was_written_is_refused_and_the_local_folder_stays(
    tmp_path: Path, stored: StoredFolder, local: Path
) -> None:
    stored.push(local, {})
    damaged = next(one for one in (tmp_path / "store").rglob("objects/*") if one.read_text() == "22")
    damaged.write_text("2x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").touch()
    with pytest.raises(StorageError, match="runs/toy/checkpoint/last is damaged"):
        stored.pull(tmp_path / "other")
    assert list_visible_files(tmp_path / "other") == ["mine"]


@pytest.mark.parametrize("content", [b"no JSON", b'{"schema": 1}', b"[]"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, stored: StoredFolder, local: Path, content: bytes) -> None:
    stored.push(local, {})
    (tmp_path / "store" / "runs" / "toy" / "manifest.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"runs/toy/manifest\.json is damaged"):
        stored.pull(tmp_path / "other")


def test_a_manifest_that_leads_out_of_the_folder_is_refused(tmp_path: Path, stored: StoredFolder, local: Path) -> None:
    stored.push(local, {})
    path = tmp_path / "store" / "runs" / "toy" / "manifest.json"
    digest = json.loads(path.read_text())["files"]["record.json"]
    path.write_text(json.dumps(seal({"schema": 1, "files": {"../../evil": digest}, "state": {}})))
    with pytest.raises(StorageError, match=r"it names '\.\./\.\./evil'"):
        stored.pull(tmp_path / "other")
    assert not list(tmp_path.rglob("evil"))


def test_a_worker_that_was_given_up_cannot_replace_what_its_successor_has_written(
    tmp_path: Path, stored: StoredFolder, local: Path
) -> None:
    stored.claim()
    successor = StoredFolder(Storage((tmp_path / "store").as_uri()), "runs/toy")
    successor.claim()
    successor.push(local, {"epoch": 5})
    (local / "record.json").write_text("of the first")
    with pytest.raises(StorageError, match="belongs to another process now"):
        stored.push(local, {"epoch": 6})
    manifest = successor.read_manifest()
    assert manifest is not None
    assert manifest.state == {"epoch": 5}


def test_a_removed_folder_is_not_there(tmp_path: Path, stored: StoredFolder, local: Path) -> None:
    stored.push(local, {})
    stored.remove()
    assert stored.read_manifest() is None
    assert list_objects(tmp_path) == []
