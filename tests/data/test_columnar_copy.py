"""The index of a columnar copy: what it names, and when the copy is not taken; `test_stored_split` reads whole ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.columnar_copy import COLUMNS, INDEX, add_split, is_mapped, read_copy, remove_copy, write_index
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import sha256_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / COLUMNS).mkdir()
    (tmp_path / "toy.inter").write_text("user_id:token\titem_id:token\n")
    np.save(tmp_path / COLUMNS / "user.npy", np.arange(4))
    write_index(tmp_path, hash_files(tmp_path, "toy.inter"), hash_files(tmp_path / COLUMNS, "user.npy"), {})
    return tmp_path


def hash_files(folder: Path, *names: str) -> dict[str, str]:
    return {name: sha256_file(folder / name) for name in names}


def test_arrays_are_mapped_and_a_split_is_added(folder: Path) -> None:
    copy = read_copy(folder, "toy", {})
    assert copy is not None
    assert set(copy.map_interactions()) == {"user"}
    user = copy.map_array("user")
    assert user.tolist() == [0, 1, 2, 3]
    assert is_mapped(user, folder / COLUMNS / "user.npy")
    assert not is_mapped(user[1:], folder / COLUMNS / "user.npy")
    assert not is_mapped(user.copy(), folder / COLUMNS / "user.npy")
    add_split(copy, {"test_user": np.array([3])}, {"kind": "leave-one-out"})
    again = read_copy(folder, "toy", {})
    assert again is not None
    again.check_files()
    assert again.split == {"kind": "leave-one-out"}
    assert again.map_array("test_user").tolist() == [3]
    remove_copy(folder)
    assert read_copy(folder, "toy", {}) is None


def test_a_copy_of_another_table_is_refused_or_not_taken(folder: Path) -> None:
    (folder / "toy.inter").write_text("other")
    assert read_copy(folder, "toy", {"toy.inter": "0" * 64}) is None, "the table itself has changed, which others say"
    with pytest.raises(DataError, match=r"are of different data; remove the folder columns"):
        read_copy(folder, "toy", hash_files(folder, "toy.inter"))


def test_damage_is_one_sentence(folder: Path) -> None:
    copy = read_copy(folder, "toy", {})
    assert copy is not None
    (folder / COLUMNS / "user.npy").write_bytes(b"x")
    with pytest.raises(DataError, match=r"user\.npy has changed since it was written; remove the folder columns"):
        copy.check_files()
    with pytest.raises(DataError, match=r"user\.npy cannot be read: .*; remove the folder columns"):
        copy.map_array("user")
    index = folder / COLUMNS / INDEX
    content = json.loads(index.read_text())
    content["files"] = {}
    index.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"columns\.json has changed since it was written"):
        read_copy(folder, "toy", {})
