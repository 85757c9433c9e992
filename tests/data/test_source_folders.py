from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hellm_recbole.config.properties_files import read_file
from hellm_recbole.data import prepare as prepare_module
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.prepare import (
    Prepared,
    prepare_if_known,
    read_dataset_settings,
)
from hellm_recbole.data.source_folders import find_source
from hellm_recbole.errors import DataError, MissingDependency

Prepare = Callable[..., Prepared]


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def beauty(sequences: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny source under the name of a known dataset, to be prepared without filter and texts."""
    whole = {"k_core": 0, "text": []}
    monkeypatch.setattr(
        prepare_module,
        "read_file",
        lambda group, name: {**read_file(group, name), **(whole if name == "Beauty" else {})},
    )
    return sequences.rename(sequences.with_name("Beauty"))


def test_the_error_about_a_dataset_that_can_be_fetched_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"no reviews_Sports_and_Outdoors_5\.json\.gz .*hellm-recbole prepare Sports --from amazon2014"
    ):
        prepare_if_known("Sports", data_path=None, dataset_root=tmp_path)


@pytest.mark.parametrize("location", ["data_path/NAME", "data_path", "HELLM_DATA", "shared"])
def test_sources_are_found(
    elsewhere: Path, beauty: Path, root: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    data_path = {"data_path/NAME": beauty.parent, "data_path": beauty}.get(location)
    if location == "HELLM_DATA":
        monkeypatch.setenv("HELLM_DATA", str(beauty.parent))
    if location == "shared":
        shutil.copytree(beauty, elsewhere.parent / "shared" / "datasets" / "Beauty")
    folder = prepare_if_known("Beauty", data_path=data_path, dataset_root=root).folder
    dataset = load_dataset(folder, modalities=None)
    assert (folder, dataset.n_items, dataset.paper) == (root / "Beauty", 4, "Beauty")
    assert list_names(root) == ["Beauty"]


def test_the_error_about_a_missing_source_names_files_and_folder(elsewhere: Path, root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare_if_known("Beauty", data_path=tmp_path / "data", dataset_root=root)
    message = str(caught.value)
    for part in ("user_sequences.txt and item_text.tsv", "S3-Rec", str(tmp_path / "data" / "Beauty"), "--data-path"):
        assert part in message
    assert not root.exists()


def test_ml_100k_is_found_in_the_package(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_dataset_settings("ml-100k", None, {})
    if importlib.util.find_spec("recbole") is not None:
        imported = "recbole" in sys.modules
        assert (find_source("ml-100k", settings.kind, None, None, None) / "ml-100k.item").is_file()
        assert ("recbole" in sys.modules) == imported  # found without importing it
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="`hellm-recbole install-recbole` installs it"):
        find_source("ml-100k", settings.kind, None, None, None)


def test_a_source_may_lie_in_a_folder_with_another_name_of_the_dataset(elsewhere: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "Toys_and_Games"
    folder.mkdir(parents=True)
    (folder / "user_sequences.txt").write_text("u1 a b c\n")
    assert find_source("Toys", "sequences", None, None, tmp_path / "data") == folder
    (tmp_path / "data" / "Toys").mkdir()
    (tmp_path / "data" / "Toys" / "user_sequences.txt").write_text("u1 a b c\n")
    assert find_source("Toys", "sequences", None, None, tmp_path / "data") == tmp_path / "data" / "Toys"
