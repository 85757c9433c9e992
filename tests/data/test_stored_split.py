from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.columnar_copy import COLUMNS, INDEX, is_mapped, remove_copy
from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.data.stored_split import split_prepared
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import seal, sha256_file
from tests.data.conftest import Prepare


def equal(one: Dataset | Split, other: Dataset | Split) -> bool:
    for name, value in vars(one).items():
        own = vars(other)[name]
        if name in ("train", "valid", "test"):
            value, own = vars(value), vars(own)
        one_by_one = [list(v.values()) if isinstance(v, dict) else [v] for v in (value, own)]
        if not all(type(a) is type(b) and np.array_equal(a, b) for a, b in zip(*one_by_one, strict=True)):
            return False
    return True


@pytest.fixture(params=["sequences", "splits"])
def folder(request: pytest.FixtureRequest, prepare_toy: Prepare) -> Path:
    source = request.getfixturevalue(request.param)
    return prepare_toy(source, request.param).folder


def test_the_copy_gives_what_the_atomic_files_give(folder: Path) -> None:
    mapped = load_dataset(folder, modalities=None)
    split = split_prepared(mapped, folder)
    assert is_mapped(mapped.user, folder / COLUMNS / "user.npy")
    assert is_mapped(split.train.items, folder / COLUMNS / "train_items.npy")
    assert all(is_mapped(m, folder / COLUMNS / f"{name}_feat.npy") for name, m in mapped.features.items())
    remove_copy(folder)
    read = load_dataset(folder, modalities=None)
    assert not is_mapped(read.user, folder / COLUMNS / "user.npy")
    assert equal(mapped, read)
    assert equal(split, split_dataset(read))
    assert equal(split_prepared(read, folder), split)


def test_a_changed_dataset_or_other_code_makes_its_own_split(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset(folder, modalities=None)
    stored = split_prepared(dataset, folder)
    other = replace(dataset, item=dataset.item[::-1].copy())
    assert equal(split_prepared(other, folder), split_dataset(other))
    assert split_prepared(other, folder).sha256 != stored.sha256
    monkeypatch.setattr("hellm_recbole.data.stored_split._CODE", ("hellm_recbole.types",))
    assert not is_mapped(split_prepared(dataset, folder).train.items, folder / COLUMNS / "train_items.npy")


def test_a_changed_copy_is_refused_with_one_sentence(folder: Path) -> None:
    path = folder / COLUMNS / "item.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\1")
    with pytest.raises(DataError, match=r"item\.npy has changed since it was written; remove the folder columns"):
        load_dataset(folder, modalities=None)
    path.write_bytes(content[:40])
    with pytest.raises(DataError, match=r"item\.npy cannot be read"):
        load_dataset(folder, modalities=None)


def test_a_copy_of_other_interactions_is_refused(folder: Path) -> None:
    index = folder / COLUMNS / INDEX
    content = json.loads(index.read_text())
    del content["sha256"]
    content["made_from"] = dict.fromkeys(content["made_from"], sha256_file(index))
    index.write_text(json.dumps(seal(content)))
    with pytest.raises(DataError, match="are of different data; remove the folder columns"):
        load_dataset(folder, modalities=None)
    index.write_text(index.read_text().replace("user.npy", "other.npy"))
    with pytest.raises(DataError, match=r"columns\.json has changed since it was written"):
        load_dataset(folder, modalities=None)


def test_changed_interactions_are_said_as_without_a_copy(folder: Path) -> None:
    table = folder / f"{folder.name}.inter"
    table.write_text(table.read_text() + "u\n")
    with pytest.raises(DataError, match=r"\.inter:\d+: the line has 1 fields"):
        load_dataset(folder, modalities=None)
