from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.known_datasets import resolve_name
from hellm_recbole.data.prepare import Prepared, prepare, read_dataset_settings, read_feature_settings
from hellm_recbole.data.split import split_dataset
from tests.data.importers.small import check_error, write_lattice

Prepare = Callable[..., Prepared]


def test_mmrec(mmrec: Path, prepare_toy: Prepare) -> None:
    path = mmrec / "baby.inter"
    path.write_text(path.read_text().replace("0\t2\t1.0\t13\t2", "0\t2\t1.0\t10\t2"))  # the test item is the first
    dataset = load_dataset(prepare_toy(mmrec, "mmrec").folder, modalities=None)
    assert dataset.part is not None
    assert dataset.time is not None
    assert (dataset.part.tolist(), dataset.time.tolist()) == ([0, 1, 2, 0], [11, 12, 10, 9])
    assert dataset.time_known
    assert dataset.features["text"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_an_mmrec_split_that_is_leave_one_out_is_recognized(mmrec: Path, prepare_toy: Prepare) -> None:
    prepared = prepare_toy(mmrec, "mmrec")
    split = split_dataset(load_dataset(prepared.folder, modalities=None))
    assert (split.kind, split.item_tokens[split.test.item].tolist()) == ("leave-one-out", ["2"])
    assert prepared.warnings[0] == "the given split is leave-one-out in time order and was read as that"


def test_mmrec_mappings_restore_the_ids(mmrec: Path, prepare_toy: Prepare) -> None:
    (mmrec / "u_id_mapping.csv").write_text("user_id\tuserID\nann\t0\nbob\t1\n")
    (mmrec / "i_id_mapping.csv").write_text("asin\titemID\nB2\t2\nB0\t0\nB1\t1\n")
    dataset = load_dataset(prepare_toy(mmrec, "mmrec").folder, modalities=None)
    assert (dataset.user_tokens.tolist(), dataset.item_tokens.tolist()) == (["", "ann", "bob"], ["", "B0", "B1", "B2"])
    assert dataset.features["text"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]  # rows are MMRec's numbers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("asin\titemID\nB0\t0\nB1\t1\n", "i_id_mapping.csv: no itemID for '2'"),
        ("asin\titemID\nB0\t0\nB0\t1\nB2\t2\n", "i_id_mapping.csv:3: asin 'B0' occurs before"),
        ("asin\titemID\nB0\t0\nB1\t0\nB2\t2\n", "i_id_mapping.csv:3: itemID '0' occurs before"),
        ("asin\tid\nB0\t0\n", "i_id_mapping.csv:1: no column 'itemID' among asin, id"),
        ("a\tb\titemID\nB0\tx\t0\n", "needs two columns, the original id and itemID; has 3"),
    ],
)
def test_faulty_mmrec_mappings(mmrec: Path, prepare_toy: Prepare, content: str, message: str) -> None:
    (mmrec / "i_id_mapping.csv").write_text(content)
    check_error(prepare_toy, mmrec, "mmrec", message)


@pytest.mark.parametrize("label", ["3", "train", "", "-1"])
def test_faulty_mmrec_labels(mmrec: Path, prepare_toy: Prepare, label: str) -> None:
    (mmrec / "baby.inter").write_text(f"userID\titemID\tx_label\n0\t0\t0\n0\t1\t{label}\n")
    check_error(prepare_toy, mmrec, "mmrec", "baby.inter:3: x_label is")


@pytest.mark.parametrize("file", ["beauty.txt", "sequential_data.txt"])
def test_s3rec_and_p5(tmp_path: Path, prepare_toy: Prepare, file: str) -> None:
    source = tmp_path / "source" / "beauty"
    source.mkdir(parents=True)
    (source / file).write_text("1 1 2 3\n2 3 1\n")
    assert split_dataset(load_dataset(prepare_toy(source, "s3rec").folder, modalities=None)).test.item.tolist() == [3]
    maps = {"id2user": {"1": "ann", "2": "bob"}, "id2item": {"1": "x", "2": "y", "3": "z"}, "user2id": {}}
    (source / "datamaps.json").write_text(json.dumps(maps))
    dataset = load_dataset(prepare_toy(source, "s3rec", fresh=True).folder, modalities=None)
    assert (dataset.user_tokens.tolist(), dataset.item_tokens.tolist()) == (["", "ann", "bob"], ["", "x", "y", "z"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "datamaps.json must hold one JSON object"),
        ("{", "datamaps.json is not readable JSON"),
        ('{"id2user": {"1": "ann"}}', "no mapping 'id2item'"),
        ('{"id2user": {"2": "ann"}, "id2item": {}}', "datamaps.json: no id2user for '1'"),
        ('{"id2user": {"1": "a"}, "id2item": {"1": "x", "2": "x"}}', "id2item gives 'x' to both '1' and '2'"),
        ('{"id2user": {"1": null}, "id2item": {}}', "id2user of '1' is None, not an id"),
        ('{"id2user": {"1": "\\ud800"}, "id2item": {"1": "x", "2": "y", "3": "z"}}', "surrogates not allowed"),
        ('{"id2user": {"1": "a", "1": "b"}, "id2item": {}}', "datamaps.json: the key '1' occurs twice"),
    ],
)
def test_faulty_datamaps(tmp_path: Path, prepare_toy: Prepare, content: str, message: str) -> None:
    source = tmp_path / "source" / "beauty"
    source.mkdir(parents=True)
    (source / "beauty.txt").write_text("1 1 2 3\n")
    (source / "datamaps.json").write_text(content)
    check_error(prepare_toy, source, "s3rec", message)


@pytest.mark.parametrize("inside", [".", "5-core"])
def test_lattice(tmp_path: Path, prepare_toy: Prepare, inside: str) -> None:
    source = tmp_path / "source" / "Clothing"
    write_lattice(source / inside)
    np.save(source / "image_feat.npy", np.eye(3))
    prepared = prepare_toy(source, "lattice")
    dataset = load_dataset(prepared.folder, modalities=None)
    split = split_dataset(dataset)
    assert split.kind == "given"
    assert split.item_tokens[split.train.get_items(1)].tolist() == ["2", "0"]
    assert split.item_tokens[split.test.item].tolist() == ["0", "2"]
    assert dataset.features["image"][list(dataset.item_tokens).index("2")].tolist() == [0, 0, 1]
    assert prepared.warnings == ("val.json: 1 users have an empty list", "test.json: 1 users have an empty list")


def test_lattice_in_a_folder_of_another_core(tmp_path: Path, prepare_toy: Prepare) -> None:
    source = tmp_path / "source" / "Clothing"
    write_lattice(source / "0-core")
    (source / "notes").mkdir()
    assert load_dataset(prepare_toy(source, "lattice").folder, modalities=None).n_items == 3
    write_lattice(source / "10-core")
    check_error(prepare_toy, source, "lattice", f"{source} holds train.json in 0-core, 10-core; name one of these")
    write_lattice(source / "5-core", train={"0": [2], "1": [1]})
    prepared = prepare_toy(source, "lattice", fresh=True)  # 5-core comes first
    assert load_dataset(prepared.folder, modalities=None).n_interactions == 5


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ({"0": 3}, "val.json: user '0' must have a list of item ids"),
        ({"0": [1.5]}, "val.json: user '0' must have a list"),
        ({"0": [True]}, "val.json: user '0' must have a list"),
        ([["0", 1]], "val.json must hold one JSON object"),
    ],
)
def test_faulty_lattice(tmp_path: Path, prepare_toy: Prepare, users: object, message: str) -> None:
    write_lattice(tmp_path / "source" / "Clothing", val=users)
    check_error(prepare_toy, tmp_path / "source" / "Clothing", "lattice", message)


@pytest.mark.parametrize("kind", ["lattice", "hellm"])
@pytest.mark.parametrize("file", ["train.json", "val.json", "test.json"])
def test_a_user_who_occurs_twice_is_refused(tmp_path: Path, prepare_toy: Prepare, kind: str, file: str) -> None:
    source = tmp_path / "source" / "Clothing"
    write_lattice(source)
    (source / file).write_text('{"0": [0, 1], "1": [2], "0": [2]}')
    check_error(prepare_toy, source, kind, f"{file}: the key '0' occurs twice; join its values or keep one")


@pytest.mark.parametrize(
    ("name", "release"),
    [("Baby", "baby"), ("Clothing", "clothing"), ("Electronics", "elec"), ("MicroLens-100k", "microlens")],
)
def test_the_release_of_mmrec_is_read_under_its_own_names(tmp_path: Path, root: Path, name: str, release: str) -> None:
    """The folders hold NAME.inter, two feature files, two mappings, and a dict of users that only MMRec reads."""
    folder = tmp_path / release
    folder.mkdir()
    rows = [f"{user}\t{item}\t5.0\t{10 * user + item}\t{item}" for user in (0, 1) for item in (0, 1, 2)]
    (folder / f"{release}.inter").write_text("userID\titemID\trating\ttimestamp\tx_label\n" + "\n".join(rows) + "\n")
    np.save(folder / "image_feat.npy", np.ones((3, 4), dtype=np.float64))
    np.save(folder / "text_feat.npy", np.eye(3, dtype=np.float32))
    np.save(folder / "user_graph_dict.npy", np.array({0: [[1], [1.0]]}, dtype=object))  # a pickle, which is not read
    (folder / "u_id_mapping.csv").write_text("user_id\tuserID\nA1\t0\nA2\t1\n")
    (folder / "i_id_mapping.csv").write_text("asin\titemID\nB1\t0\nB2\t1\nB3\t2\n")
    assert resolve_name(release, [root]) == name
    settings = read_dataset_settings(name, "mmrec", {})
    prepared = prepare(name, folder, settings, read_feature_settings({}), root, fresh=False, progress=False)
    dataset = load_dataset(prepared.folder, modalities=None)
    assert {modality: matrix.shape for modality, matrix in dataset.features.items()} == {
        "image": (4, 4),
        "text": (4, 3),
    }
    assert sorted(dataset.item_tokens.tolist()) == ["", "B1", "B2", "B3"]
    assert (settings.k_core, settings.text) == (0, ())
