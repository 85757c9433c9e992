from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data import prepare as prepare_module
from hellm_recbole.data.atomic import load_dataset, read_manifest
from hellm_recbole.data.prepare import (
    Prepared,
    find_source,
    list_datasets,
    list_kinds,
    prepare,
    prepare_if_known,
    read_dataset_settings,
    read_feature_settings,
)
from hellm_recbole.errors import DataError, MissingDependency, OutputError, SettingsError
from hellm_recbole.system.locks import FolderLock

Prepare = Callable[..., Prepared]


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder without ../shared, and no HELLM_DATA."""
    folder = tmp_path / "here" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HELLM_DATA", raising=False)
    return folder


@pytest.fixture
def beauty(sequences: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny source under the name of a known dataset, to be prepared without filter and texts."""
    monkeypatch.setattr(
        prepare_module,
        "load_yaml",
        lambda path: {**load_yaml(path), "k_core": 0, "text": []} if path.stem == "Beauty" else load_yaml(path),
    )
    return sequences.rename(sequences.with_name("Beauty"))


def test_every_dataset_file_and_every_kind_loads() -> None:
    assert list_datasets() == ["Beauty", "Sports", "TikTok", "Toys", "ml-100k"]
    for name in list_datasets():
        assert read_dataset_settings(name, None, {}).kind in prepare_module.KINDS
        for kind in list_kinds(name):
            assert read_dataset_settings(name, kind, {}).kind == kind
    assert load_yaml(find_properties() / "kinds.yaml").keys() - {"every"} == prepare_module.KINDS.keys()
    for kind in prepare_module.KINDS:
        assert read_dataset_settings("my-own", kind, {"category": "All_Beauty"}).kind == kind


def test_a_known_dataset_may_come_from_other_kinds() -> None:
    settings = read_dataset_settings("Toys", "amazon2014", {})
    assert (settings.category, settings.paper, settings.k_core) == ("Toys_and_Games", "Toys", 5)
    assert settings.text == ("title", "brand", "categories", "description")
    with pytest.raises(DataError, match=r"dataset Toys is of kind sequences or amazon2014 or .*, not mmrec"):
        read_dataset_settings("Toys", "mmrec", {})


def test_amazon_needs_a_category() -> None:
    with pytest.raises(
        DataError, match=r"dataset my-own needs the name of an Amazon category; give it with --category"
    ):
        read_dataset_settings("my-own", "amazon2023", {})


def test_the_error_about_a_dataset_that_can_be_fetched_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no reviews_Sports_and_Outdoors_5\.json\.gz .*py Sports --from amazon2014"):
        prepare_if_known("Sports", data_path=None, dataset_root=tmp_path)


def test_the_command_line_overrides_and_is_checked() -> None:
    assert read_dataset_settings("Beauty", None, {"k_core": 10}).k_core == 10
    with pytest.raises(SettingsError, match="the command line: k_core = -1 must be >= 0"):
        read_dataset_settings("Beauty", None, {"k_core": -1})
    with pytest.raises(DataError, match="Beauty is of kind sequences"):
        read_dataset_settings("Beauty", "mmrec", {})


@pytest.mark.parametrize(("name", "near"), [("Beuty", "Beauty"), ("toys", "Toys"), ("ml100k", "ml-100k")])
def test_an_unknown_dataset_names_the_nearest(root: Path, name: str, near: str) -> None:
    with pytest.raises(DataError, match=f"unknown dataset '{name}'; did you mean '{near}'"):
        prepare_if_known(name, data_path=None, dataset_root=root)


def test_an_own_dataset_is_known_after_it_is_prepared(
    elsewhere: Path, sequences: Path, root: Path, prepare_toy: Prepare
) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    assert prepare_if_known("Toy", data_path=None, dataset_root=root).folder == folder
    with pytest.raises(DataError, match="did you mean 'Toy'"):
        prepare_if_known("toy", data_path=None, dataset_root=root)


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
        assert (find_source("ml-100k", settings, None) / "ml-100k.item").is_file()
        assert ("recbole" in sys.modules) == imported  # found without importing it
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install --no-deps recbole"):
        find_source("ml-100k", settings, None)


def test_a_prepared_dataset_is_not_prepared_again(sequences: Path, prepare_toy: Prepare) -> None:
    first = prepare_toy(sequences, "sequences")
    stamp = (first.folder / "dataset.json").stat().st_mtime_ns
    again = prepare_toy(sequences, "sequences")
    assert (first.fresh, again.fresh) == (True, False)
    assert (again.folder / "dataset.json").stat().st_mtime_ns == stamp


def test_other_inputs_need_fresh(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    prepare_toy(sequences, "sequences")
    with pytest.raises(DataError, match="was prepared with another k_core; replace it with --fresh"):
        prepare_toy(sequences, "sequences", k_core=3)
    prepare_toy(sequences, "sequences", k_core=3, fresh=True)
    assert read_manifest(root / "Toy")["k_core"] == 3
    assert list_names(root) == ["Toy"]
    (sequences / "user_sequences.txt").write_text("u1 a b c\n")
    with pytest.raises(DataError, match="was prepared with another source"):
        prepare_toy(sequences, "sequences", k_core=3)


def test_files_added_by_hand_are_not_removed(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    np.save(folder / "image_feat.npy", np.eye(4))
    with pytest.raises(DataError, match=r"image_feat\.npy was not prepared by this program and would be lost"):
        prepare_toy(sequences, "sequences", fresh=True)
    (root / "Other").mkdir()
    with pytest.raises(DataError, match=r"was not prepared by this program \(dataset\.json is missing\)"):
        prepare_toy(sequences, "sequences", fresh=True, name="Other")
    np.save(folder / "image_feat.npy", np.eye(4))
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match=r"image_feat\.npy was not prepared by this program"):
        prepare_toy(sequences, "sequences", fresh=True)
    with pytest.raises(
        DataError, match=r"the source .* is inside the output folder .*; choose another one with --output"
    ):
        prepare_toy(folder, "recbole", fresh=True)


def test_fresh_replaces_a_broken_dataset(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    (folder / "Toy.item").unlink()
    with pytest.raises(DataError, match=r"Toy\.item is missing; prepare the dataset again with --fresh"):
        prepare_toy(sequences, "sequences")
    prepare_toy(sequences, "sequences", fresh=True)
    assert load_dataset(folder, modalities=None).n_users == 3


@pytest.mark.parametrize("broken", ["write_dataset", "replace_folder"])
def test_a_failure_keeps_the_previous_dataset_and_leaves_no_other_file(
    sequences: Path, root: Path, prepare_toy: Prepare, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    prepare_toy(sequences, "sequences")
    before = {path.name: path.read_bytes() for path in (root / "Toy").iterdir()}

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, broken, stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_toy(sequences, "sequences", k_core=3, fresh=True)
    assert list_names(root) == ["Toy"]
    assert {path.name: path.read_bytes() for path in (root / "Toy").iterdir()} == before


def test_files_of_killed_processes_are_removed(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (root / f".Toy.tmp-{gone.pid}").mkdir(parents=True)
    (root / f".Toy.tmp-{os.getppid()}").mkdir()
    prepare_toy(sequences, "sequences")
    assert list_names(root) == [f".Toy.tmp-{os.getppid()}", "Toy"]


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", ""])
def test_names_are_file_names(sequences: Path, root: Path, prepare_toy: Prepare, name: str) -> None:
    with pytest.raises(SettingsError, match="not usable as a file name"):
        prepare_toy(sequences, "sequences", name=name or "..")
    assert not root.exists()
    with pytest.raises(SettingsError, match="not usable as a file name"):
        prepare_if_known(name, data_path=None, dataset_root=root)


def test_a_category_is_a_file_name() -> None:
    with pytest.raises(SettingsError, match=r"--category '\.\./Beauty' is not usable"):
        read_dataset_settings("Mine", "amazon2014", {"category": "../Beauty"})


def test_two_processes_do_not_prepare_one_dataset_at_once(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    prepare_toy(sequences, "sequences")
    with FolderLock(root / "Toy", "another"):
        with pytest.raises(OutputError, match=f"^dataset Toy is in use by process {os.getpid()} on"):
            prepare_toy(sequences, "sequences", fresh=True)
        assert prepare_if_known("Toy", data_path=None, dataset_root=root).folder == root / "Toy"  # only read
    assert list_names(root) == ["Toy"]


def test_an_output_that_cannot_be_made(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    root.write_text("a file, not a folder")
    with pytest.raises(OutputError, match="cannot make folder"):
        prepare_toy(sequences, "sequences")


def test_texts_and_given_text_features_do_not_mix(mmrec: Path, prepare_toy: Prepare) -> None:
    with pytest.raises(DataError, match=r"modality 'text' would exist twice, .*; give --text without a value"):
        prepare_toy(mmrec, "mmrec", text=("title",))


def test_the_filter_reports_what_it_dropped(sequences: Path, prepare_toy: Prepare) -> None:
    warning = prepare_toy(sequences, "sequences", k_core=3).warnings
    assert warning == (
        "the 3-core filter dropped 1 of 10 interactions, 0 of 3 users and 1 of 4 items; --k-core 0 keeps all",
    )


def test_data_warnings_are_reported_at_once(splits: Path, prepare_toy: Prepare) -> None:
    warning = prepare_toy(splits, "splits").warnings[-1]
    assert warning == "warnings: cold items (prepare.py --check and the data card explain their effects)"


def test_a_filter_does_not_cut_a_given_split(splits: Path, prepare_toy: Prepare) -> None:
    with pytest.raises(DataError, match=r"has its own split, but the 2-core filter would drop 1 of 5 interactions"):
        prepare_toy(splits, "splits", k_core=2)


def test_a_missing_device_is_reported_before_the_source_is_read(sequences: Path, root: Path) -> None:
    settings = read_dataset_settings("Mine", "sequences", {})
    with pytest.raises(SettingsError, match=r"--encode-device cuda:99: no such device here"):
        prepare(
            "Mine",
            sequences / "..",
            settings,
            read_feature_settings({"encode_device": "cuda:99"}),
            root,
            fresh=False,
            progress=False,
        )
