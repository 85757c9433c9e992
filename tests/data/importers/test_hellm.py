"""The folders of the HeLLM release: hand-made copies of their layouts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.importers.sources import KINDS
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.prepare import Prepared, make_request, read_dataset_settings
from hellm_recbole.data.source_folders import find_source
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError
from tests.data.importers.small import check_error, read_sequences, write_lattice

Prepare = Callable[..., Prepared]

USERS, ITEMS = ["A1", "A2"], ["B1", "B2", "B3", "B4"]  # sorted, so that user 0 is A1 and item 0 is B1
TRAIN = {"0": [3, 0], "1": [2]}
NUMBERS_ARE_IDS = "ids are the numbers of the HeLLM release"


@pytest.fixture
def pre_data(tmp_path: Path) -> Path:
    """HeLLM_pre_data/Beauty: lists that are leave-one-out, and two feature files with one row for each item."""
    folder = tmp_path / "HeLLM_pre_data" / "Beauty"
    write_lattice(folder / "5-core", train=TRAIN, val={"0": [1], "1": [1]}, test={"0": [2], "1": [3]})
    np.save(folder / "image_feat.npy", np.arange(8.0).reshape(4, 2))
    np.save(folder / "text_feat.npy", np.eye(4, dtype=np.float32))
    return folder


@pytest.fixture
def ft_data(tmp_path: Path) -> Path:
    """HeLLM_ft_data/Toys_and_Games: the same interactions as sequences, with embeddings of models."""
    folder = tmp_path / "HeLLM_ft_data" / "Toys_and_Games"
    folder.mkdir(parents=True)
    (folder / "Toys_and_Games.txt").write_text("0 3 0 1 2\n1 2 1 3\n")
    for name in ("MMHCL_user_embeddings", "MMHCL_item_embeddings", "SASRec_item_embedding"):
        (folder / f"{name}.pt").write_bytes(b"never opened")
    return folder


def write_maps(folder: Path, users: list[str] = USERS, items: list[str] = ITEMS) -> None:
    """Write the maps as the notebook of the release does: tab separated, sorted by original id."""
    for file, header, tokens in (
        ("u_id_mapping.csv", "reviewerID\tuser_id", users),
        ("i_id_mapping.csv", "asin\titem_id", items),
    ):
        rows = "".join(f"{token}\t{number}\n" for number, token in enumerate(tokens))
        (folder / file).write_text(f"{header}\n{rows}")


def test_lists_and_features_of_the_pre_training(pre_data: Path, prepare_toy: Prepare) -> None:
    prepared = prepare_toy(pre_data, "hellm")
    dataset = load_dataset(prepared.folder, modalities=None)
    split = split_dataset(dataset)
    assert split.kind == "given"  # although it is leave-one-out
    assert split.item_tokens[split.train.get_items(1)].tolist() == ["3", "0"]
    assert split.item_tokens[split.valid.item].tolist() == ["1", "1"]
    assert split.item_tokens[split.test.item].tolist() == ["2", "3"]
    rows = {str(token): dataset.features["image"][item].tolist() for item, token in enumerate(dataset.item_tokens)}
    assert rows == {"": [0, 0], "0": [0, 1], "1": [2, 3], "2": [4, 5], "3": [6, 7]}
    assert read_manifest(prepared.folder).warnings[0].startswith(NUMBERS_ARE_IDS)
    assert "u_id_mapping.csv and i_id_mapping.csv of its notebook" in prepared.warnings[0]


def test_sequences_of_the_language_model(ft_data: Path, prepare_toy: Prepare) -> None:
    prepared = prepare_toy(ft_data, "hellm", name="Toys")
    assert read_sequences(prepared) == {"0": ["3", "0", "1"], "1": ["2", "1"]}
    split = split_dataset(load_dataset(prepared.folder, modalities=None))
    assert (split.kind, split.item_tokens[split.test.item].tolist()) == ("leave-one-out", ["2", "3"])
    assert (
        "MMHCL_item_embeddings.pt, MMHCL_user_embeddings.pt, SASRec_item_embedding.pt: not read, because embeddings of "
        "models are trained here on the same split"
    ) in prepared.warnings


def test_known_datasets_are_found_under_the_name_of_the_release(ft_data: Path, pre_data: Path, elsewhere: Path) -> None:
    for name in ("Beauty", "Sports", "Toys"):
        settings = read_dataset_settings(name, "hellm", {})
        assert (settings.k_core, settings.text, settings.paper) == (0, (), name)
        assert "Xu107/HeLLM" in str(settings.origin)
    assert find_source("Toys", "hellm", None, None, ft_data.parent) == ft_data
    assert find_source("Beauty", "hellm", None, None, pre_data.parent) == pre_data


def test_the_maps_restore_the_ids(pre_data: Path, ft_data: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    for folder in (pre_data, ft_data):
        write_maps(folder)
    (ft_data / "item_text.tsv").write_text("item_id\ttitle\nB3\tsoap\n")
    prepared = prepare_toy(pre_data, "hellm")
    dataset = load_dataset(prepared.folder, modalities=None)
    assert (dataset.user_tokens.tolist(), sorted(dataset.item_tokens)) == (["", *USERS], ["", *ITEMS])
    assert dataset.features["text"][list(dataset.item_tokens).index("B3")].tolist() == [0, 0, 1, 0]  # row 2
    assert not any(warning.startswith(NUMBERS_ARE_IDS) for warning in prepared.warnings)
    released = prepare_toy(ft_data, "hellm", name="Toys", fresh=True)
    assert read_sequences(released) == {"A1": ["B4", "B1", "B2"], "A2": ["B3", "B2"]}
    assert "B3\tsoap" in (released.folder / "Toys.item").read_text()
    original = tmp_path / "original" / "Toys"
    original.mkdir(parents=True)
    (original / "user_sequences.txt").write_text("A1 B4 B1 B2 B3\nA2 B3 B2 B4\n")
    hashes = [split_dataset(load_dataset(released.folder, modalities=None)).sha256]
    hashes.append(
        split_dataset(load_dataset(prepare_toy(original, "sequences", fresh=True).folder, modalities=None)).sha256
    )
    assert hashes[0] == hashes[1]  # the same dataset through another source


def test_one_map_alone_restores_its_ids(ft_data: Path, prepare_toy: Prepare) -> None:
    write_maps(ft_data)
    (ft_data / "u_id_mapping.csv").unlink()
    prepared = prepare_toy(ft_data, "hellm", name="Toys")
    assert read_sequences(prepared) == {"0": ["B4", "B1", "B2"], "1": ["B3", "B2"]}
    assert "fit them; u_id_mapping.csv of its notebook would restore the original ids" in prepared.warnings[0]


def test_tensors_of_the_notebook_are_features(pre_data: Path, prepare_toy: Prepare) -> None:
    (pre_data / "text_feat.npy").unlink()
    (pre_data / "image_feat.npy").unlink()
    torch.save(torch.arange(8, dtype=torch.float16).reshape(4, 2), pre_data / "img_feat.pt")
    torch.save(torch.eye(4), pre_data / "text_feat.pt")
    write_maps(pre_data)
    dataset = load_dataset(prepare_toy(pre_data, "hellm").folder, modalities=None)
    assert sorted(dataset.features) == ["image", "text"]
    for row, token in enumerate(ITEMS):
        item = list(dataset.item_tokens).index(token)
        assert dataset.features["image"][item].tolist() == [2 * row, 2 * row + 1]
        assert dataset.features["text"][item].tolist() == np.eye(4)[row].tolist()


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write_text(name: str, content: object) -> Callable[[Path], object]:
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda folder: (folder / name).write_text(text)


def save(name: str, values: Any) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, values, allow_pickle=True)


def save_tensor(name: str, values: object) -> Callable[[Path], None]:
    return lambda folder: torch.save(values, folder / name)


def map_ids(**ids: list[str]) -> Callable[[Path], None]:
    return lambda folder: write_maps(folder, **ids)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("5-core/val.json"), "5-core/val.json cannot be read: No such file"),
        (remove("5-core/train.json"), "5-core/train.json cannot be read: No such file"),
        (write_text("5-core/test.json", "{"), "5-core/test.json is not readable JSON"),
        (write_text("5-core/test.json", {"0": [4], "1": [3]}), "image_feat.npy has 4 rows, but there are 5 items"),
        (write_text("5-core/test.json", {"0": [9], "1": [3]}), "5-core: 5 items have numbers from 0 to 9, but the"),
        (write_text("5-core/test.json", {"0": [-1], "1": [3]}), "5-core: item '-1' is not a number"),
        (write_text("5-core/test.json", {"0": ["B1"], "1": [3]}), "5-core: item 'B1' is not a number"),
        (write_text("5-core/test.json", {"0": ["03"], "1": [3]}), "5-core: item '03' is not a number"),
        (write_text("5-core/test.json", {"0": ["9" * 5000], "1": [3]}), "99...999"),
        (write_text("5-core/test.json", {"0": [3], "7": [3]}), "5-core: 3 users have numbers from 0 to 7"),
        (write_text("Beauty.txt", "0 1 2 3\n"), "holds Beauty.txt and train.json; keep only one of them"),
        (save("text_feat.npy", np.eye(3)), "text_feat.npy has 3 rows, but there are 4 items"),
        (save("text_feat.npy", np.eye(5)), "text_feat.npy has 5 rows, but there are 4 items"),
        (save("text_feat.npy", np.full((4, 1), np.nan)), "text_feat.npy: row 0 (item '"),
        (save("text_feat.npy", np.array([[{}]] * 4)), "text_feat.npy cannot be read as a .npy matrix"),
        (save_tensor("text_feat.pt", torch.eye(4)), "text_feat.pt and text_feat.npy both hold features of modality"),
        (save_tensor("audio_feat.pt", torch.eye(3)), "audio_feat.pt has 3 rows, but there are 4 items"),
        (save_tensor("audio_feat.pt", torch.full((4, 2), torch.inf)), "audio_feat.pt: row 0 (item '"),
        (write_text("audio_feat.pkl", "x"), "audio_feat.pkl is not read, because a .pkl file may hold pickled code"),
        (write_text("audio_feat.npz", "x"), "save its matrix with numpy.save as audio_feat.npy, or remove the file"),
        (map_ids(items=["B1", "B2", "B3"]), "i_id_mapping.csv: no item_id for '3'"),
        (map_ids(items=[*ITEMS, "B5"]), "i_id_mapping.csv has 5 ids, but the interactions have 4"),
        (map_ids(items=["B2", "B1", "B3", "B4"]), "i_id_mapping.csv: 'B2' comes before 'B1', but the HeLLM release"),
        (map_ids(users=["A1", "A1"]), "u_id_mapping.csv:3: reviewerID 'A1' occurs before"),
        (write_text("i_id_mapping.csv", "asin,item_id\nB1,0\n"), "'asin,item_id' has commas; the file must be tab-sep"),
        (write_text("i_id_mapping.csv", "asin\titemID\nB1\t0\n"), "i_id_mapping.csv:1: no column 'item_id' among"),
    ],
)
def test_faults_of_the_pre_training_data(
    pre_data: Path, prepare_toy: Prepare, root: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(pre_data)
    check_error(prepare_toy, pre_data, "hellm", message)
    assert not (root / "Beauty").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 1 2\n2 3 1\n", "Toys_and_Games.txt: 2 users have numbers from 1 to 2, but the HeLLM release"),
        ("0 1 2\n1 3 1\n", "Toys_and_Games.txt: 3 items have numbers from 1 to 3, but the HeLLM release"),
        ("0 1 2\n0 3 1\n", "Toys_and_Games.txt:2: user '0' is already on line 1"),
        ("0\n", "Toys_and_Games.txt:1: the line needs a user and at least one item"),
        ("", "Toys_and_Games.txt is empty"),
    ],
)
def test_faulty_sequences(ft_data: Path, prepare_toy: Prepare, content: str, message: str) -> None:
    (ft_data / "Toys_and_Games.txt").write_text(content)
    check_error(prepare_toy, ft_data, "hellm", message)


def test_a_folder_without_the_files_names_them(tmp_path: Path, ft_data: Path) -> None:
    settings = read_dataset_settings("Sports", "hellm", {})
    with pytest.raises(DataError) as caught:
        KINDS["hellm"].read(ft_data.parent, make_request("Sports", settings, progress=False))
    assert str(caught.value) == (
        f"{ft_data.parent} holds neither 5-core/train.json nor Sports.txt; name a folder of the HeLLM release, such as "
        "HeLLM_pre_data/Sports, with --source"
    )


@pytest.mark.parametrize("folder", ["Toys", "toys_and_games", "Toys_and_Games"])
def test_the_folder_of_all_datasets_may_be_named(ft_data: Path, prepare_toy: Prepare, folder: str) -> None:
    write_maps(ft_data)
    if folder != ft_data.name:
        ft_data.rename(ft_data.with_name(folder))
    (ft_data.parent / "Beauty").mkdir()
    prepared = prepare_toy(ft_data.parent, "hellm", name="Toys")
    assert read_sequences(prepared) == {"A1": ["B4", "B1", "B2"], "A2": ["B3", "B2"]}
    inputs = read_manifest(prepared.folder).inputs.source
    assert f"{folder}/Toys_and_Games.txt" in inputs
    if folder != "Toys":
        (ft_data.parent / "Toys").mkdir()  # now two folders have a name of the dataset
        check_error(
            lambda *options: prepare_toy(*options, name="Toys", fresh=True), ft_data.parent, "hellm", "holds neither"
        )


def test_names_of_the_release_reach_the_importer(ft_data: Path) -> None:
    settings = read_dataset_settings("Toys", "hellm", {})
    moved = ft_data.rename(ft_data.with_name("downloaded"))
    data = KINDS["hellm"].read(moved, make_request("Toys", settings, progress=False))
    assert [path.name for path in data.files] == ["Toys_and_Games.txt"]
    assert isinstance(data.features, Mapping)
    assert not data.features
