from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset, read_source_times
from hellm_recbole.data.export_mmrec import write_mmrec
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.prepare import Prepared, prepare, read_dataset_settings, read_feature_settings
from hellm_recbole.data.split import split_dataset
from tests.data.importers.small import check_error

Prepare = Callable[..., Prepared]
SHARED = Path(__file__).resolve().parents[4] / "shared" / "datasets"
FINE = ["1700000000000000002", "1700000000000000001", "-1.5", "17e17", "1.7e18", "0.1"]


def test_splits(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    dataset = load_dataset(folder, modalities=None)
    assert dataset.item_tokens.tolist() == ["", "3", "1", "0"]
    assert dataset.part is not None
    assert dataset.part.tolist() == [0, 1, 2, 0, 2]
    assert not dataset.time_known
    assert dataset.features["image"].tolist() == [[0, 0], [6, 7], [2, 3], [0, 1]]  # rows 3, 1 and 0 of the file
    assert dataset.features["image"].dtype == np.float32
    assert list(read_manifest(folder).warnings) == [
        "interactions.tsv has no column 'timestamp', so the order of its rows stands for time in each part, and models "
        "read histories in it; unless each user's rows are oldest first, sort them or add a column 'timestamp'",
        "image_feat.npy: 1 rows belong to no item of the interactions and were left out",
    ]
    split = split_dataset(dataset)
    assert (split.kind, split.test.user.tolist(), split.test.item.tolist()) == ("given", [1, 2], [3, 2])


def test_the_same_data_through_sequences_mmrec_and_csv_has_one_split_hash(
    sequences: Path, prepare_toy: Prepare, tmp_path: Path
) -> None:
    def split_hash(prepared: Prepared) -> str:
        return split_dataset(load_dataset(prepared.folder, modalities=None)).sha256

    here = prepare_toy(sequences, "sequences")
    dataset = load_dataset(here.folder, modalities=None)
    write_mmrec(dataset, tmp_path / "exported")
    (tmp_path / "csv").mkdir()
    with (tmp_path / "csv" / "shop.csv").open("w") as stream:
        stream.write("item_id,user_id,timestamp\n")
        for line in reversed((here.folder / "Toy.inter").read_text().splitlines()[1:]):  # in another order
            user, item, time = line.split("\t")
            stream.write(f"{item},{user},{time}\n")
    through_mmrec = prepare_toy(tmp_path / "exported", "mmrec", name="Toy", fresh=True)
    assert split_hash(through_mmrec) == split_dataset(dataset).sha256
    assert split_hash(prepare_toy(tmp_path / "csv", "table", name="shop")) == split_dataset(dataset).sha256


def test_recbole_keeps_all_columns(recbole: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(recbole, "recbole").folder
    lines = (folder / "films.inter").read_text().splitlines()
    assert lines[0] == "user_id:token\titem_id:token\ttimestamp:float\trating:float"
    assert lines[1] == "7\tx\t30\t3"
    assert (folder / "films.item").read_text() == (recbole / "films.item").read_text()
    split = split_dataset(load_dataset(folder, modalities=None))
    assert split.item_tokens[split.train.items].tolist() == ["y", "x"]  # by time, not by line
    assert split.item_tokens[split.test.item].tolist() == ["x", "z"]  # user 8: y and z tie, the file's order holds


def write_times(path: Path, times: Sequence[str], *, further: str = "", values: str = "456789") -> None:
    rows = zip("777888", "xyzxyz", times, values, strict=True)
    lines = [f"{user}\t{item}\t{time}\t{value}" for user, item, time, value in rows]
    path.write_text(f"user_id:token\titem_id:token\ttimestamp:float\t{further}\n" + "\n".join(lines) + "\n")


def test_a_folder_of_ours_read_as_recboles_is_the_same_dataset(recbole: Path, prepare_toy: Prepare, root: Path) -> None:
    write_times(recbole / "films.inter", FINE, further="rating:float")
    once = prepare_toy(recbole, "recbole").folder
    (once / "films.inter").rename(recbole / "again.inter")
    twice = prepare_toy(recbole, "recbole", name="again").folder
    assert (twice / "again.inter").read_bytes() == (recbole / "again.inter").read_bytes()
    assert read_source_times(twice) == FINE
    split = split_dataset(load_dataset(twice, modalities=None))
    assert split.item_tokens[split.test.item].tolist() == ["x", "y"]
    assert (split.item_tokens[split.train.items].tolist(), split.n_short_users) == (["z", "z"], 0)
    header, *rows = (twice / "again.inter").read_text().splitlines()
    assert header == "user_id:token\titem_id:token\ttimestamp:float\trating:float\tsource_time:float"
    assert rows[0] == "7\tx\t4\t4\t1700000000000000002"


def test_a_folder_of_an_earlier_version_is_read_unchanged(recbole: Path, prepare_toy: Prepare) -> None:
    write_times(recbole / "films.inter", FINE, further="rating:float")
    folder = prepare_toy(recbole, "recbole").folder
    new = load_dataset(folder, modalities=None)
    (folder / "films.inter").write_bytes((recbole / "films.inter").read_bytes())
    manifest = json.loads((folder / "dataset.json").read_text())
    del manifest["time_column"], manifest["sha256"]
    (folder / "dataset.json").write_text(json.dumps(manifest))
    old = load_dataset(folder, modalities=None, verify=False)
    assert split_dataset(old).sha256 == split_dataset(new).sha256
    assert read_source_times(folder) == FINE


def test_a_column_of_the_source_named_source_time(recbole: Path, prepare_toy: Prepare) -> None:
    further = {"further": "source_time:float", "values": "321654"}  # 7 took z first by it, x first by timestamp
    write_times(recbole / "films.inter", "123123", **further)
    folder = prepare_toy(recbole, "recbole").folder
    assert (folder / "films.inter").read_text() == (recbole / "films.inter").read_text()
    split = split_dataset(load_dataset(folder, modalities=None))
    assert split.item_tokens[split.test.item].tolist() == ["z", "z"]
    write_times(recbole / "films.inter", FINE, **further)
    check_error(prepare_toy, recbole, "recbole", "films.inter:1: column 'source_time' would be overwritten: times")


def test_recbole_without_times_uses_the_order_of_the_file(recbole: Path, prepare_toy: Prepare) -> None:
    (recbole / "films.inter").write_text("user_id:token\titem_id:token\n1\tx\n2\tx\n1\ty\n1\tz\n")
    dataset = load_dataset(prepare_toy(recbole, "recbole").folder, modalities=None)
    assert dataset.time is not None
    assert (dataset.time.tolist(), dataset.time_known) == ([0, 0, 1, 2], False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "user_sequences.txt is empty"),
        ("u1 a\n\nu2 b\n", "user_sequences.txt:2: the line needs a user and at least one item"),
        ("u1 a\nu2\n", "user_sequences.txt:2: the line needs a user and at least one item"),
        ("u1 a\nu2 b\nu1 c\n", "user_sequences.txt:3: user 'u1' is already on line 1"),
        ('u1 a"b\n', "holds a quote"),
    ],
)
def test_faulty_sequences(sequences: Path, prepare_toy: Prepare, content: str, message: str) -> None:
    (sequences / "user_sequences.txt").write_text(content)
    check_error(prepare_toy, sequences, "sequences", message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id\titem_id\n0\t1\n", "interactions.tsv:1: no column 'split'"),
        ("user_id\titem_id\tsplit\n0\t1\tdev\n", "interactions.tsv:2: split is 'dev'"),
        ("user_id\titem_id\tsplit\n0\t\ttrain\n", "interactions.tsv:2: item_id is empty"),
        ("user_id\titem_id\tsplit\n0\t4\ttrain\n", "image_feat.npy has no row for 1 item ('4')"),
        ("user_id\titem_id\tsplit\n0\t01\ttrain\n", "item '01' is not a row number"),
        ("user_id\titem_id\tsplit\ttimestamp\n0\t1\ttrain\tnoon\n", "interactions.tsv:2: timestamp is 'noon'"),
    ],
)
def test_faulty_splits(splits: Path, prepare_toy: Prepare, content: str, message: str) -> None:
    (splits / "interactions.tsv").write_text(content)
    check_error(prepare_toy, splits, "splits", message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id\titem_id\n1\t2\n", "films.inter:1: header field 'user_id' is not `name:type`"),
        ("uid:token\titem_id:token\n1\t2\n", "films.inter:1: no column 'user_id'"),
        ("user_id:token\titem_id:token\trating:float\n1\t2\t5\n1\t3\tgood\n", "films.inter:3: rating is 'good'"),
        ("user_id:token\titem_id:token\tuser_id:token\n1\t2\t1\n", "column 'user_id' occurs twice"),
    ],
)
def test_faulty_recbole_files(recbole: Path, prepare_toy: Prepare, content: str, message: str) -> None:
    (recbole / "films.inter").write_text(content)
    check_error(prepare_toy, recbole, "recbole", message)


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions", "cold"),
    [
        ("Beauty", 22_363, 12_101, 198_502, 33),
        ("Toys", 19_412, 11_924, 167_597, 48),
        ("TikTok", 9_308, 6_710, 68_722, 465),
    ],
)
def test_the_counts_of_the_paper(root: Path, name: str, users: int, items: int, interactions: int, cold: int) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {name} in ../shared/datasets")
    settings = read_dataset_settings(name, None, {"text": []})
    prepared = prepare(name, SHARED / name, settings, read_feature_settings({}), root, fresh=False, progress=False)
    dataset = load_dataset(prepared.folder, modalities=None)
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (users, items, interactions)
    assert dataset.n_dropped == 0
    assert items - len(np.unique(split_dataset(dataset).train.items)) == cold
