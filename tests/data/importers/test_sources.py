from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.atomic import load_dataset, read_item_texts, read_manifest, read_source_times
from hellm_recbole.data.export_mmrec import write_mmrec
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.sources import read_recbole, read_sequences
from hellm_recbole.data.importers.text import clean_text
from hellm_recbole.data.prepare import Prepared, prepare, read_dataset_settings, read_feature_settings
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.system.locks import FolderLock

Prepare = Callable[..., Prepared]

SHARED = Path(__file__).resolve().parents[4] / "shared" / "datasets"

REQUEST = Request(name="films", category="", columns={}, table=None, progress=False)


def check_error(prepare_toy: Prepare, source: Path, kind: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare_toy(source, kind)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_splits(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    dataset = load_dataset(folder, modalities=None)
    assert dataset.item_tokens.tolist() == ["", "3", "1", "0"]
    assert dataset.part is not None
    assert dataset.part.tolist() == [0, 1, 2, 0, 2]
    assert not dataset.time_known
    assert dataset.features["image"].tolist() == [[0, 0], [6, 7], [2, 3], [0, 1]]  # rows 3, 1 and 0 of the file
    assert dataset.features["image"].dtype == np.float32
    assert read_manifest(folder)["warnings"] == [
        "interactions.tsv has no column 'timestamp', so the order of its rows stands for time in each part, and models "
        "read histories in it; unless each user's rows are oldest first, sort them or add a column 'timestamp'",
        "image_feat.npy: 1 rows belong to no item of the interactions and were left out",
    ]
    split = split_dataset(dataset)
    assert (split.kind, split.test.user.tolist(), split.test.item.tolist()) == ("given", [1, 2], [3, 2])


def test_mmrec(mmrec: Path, prepare_toy: Prepare) -> None:
    path = mmrec / "baby.inter"
    path.write_text(path.read_text().replace("0\t2\t1.0\t13\t2", "0\t2\t1.0\t10\t2"))  # the test item is the first
    dataset = load_dataset(prepare_toy(mmrec, "mmrec").folder, modalities=None)
    assert dataset.part is not None
    assert dataset.time is not None
    assert (dataset.part.tolist(), dataset.time.tolist()) == ([0, 1, 2, 0], [11, 12, 10, 9])
    assert dataset.time_known
    assert dataset.features["text"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_mmrec_and_recbole_without_times_warn_and_advise(mmrec: Path, recbole: Path, prepare_toy: Prepare) -> None:
    for path in (mmrec / "baby.inter", recbole / "films.inter"):
        path.write_text(path.read_text().replace("timestamp", "reviewTime"))
    said = "has no column 'timestamp', so the order of its rows stands for time"
    unless = "; unless each user's rows are oldest first, name the column of times"
    given, own = prepare_toy(mmrec, "mmrec"), prepare_toy(recbole, "recbole")
    assert given.warnings[0] == (
        f"baby.inter {said} in each part, and models read histories in it{unless} timestamp (columns: reviewTime "
        "(looks like times), rating)"
    )
    assert own.warnings[0] == (
        f"films.inter {said} and each user's last row is for test{unless} timestamp:float (columns: reviewTime (looks "
        "like times), rating)"
    )
    assert f"- {own.warnings[0]}\n" in (own.folder / "README.md").read_text()


@pytest.mark.parametrize("kind", ["sequences", "lattice"])
def test_lists_in_time_order_by_definition_need_no_warning(
    sequences: Path, tmp_path: Path, prepare_toy: Prepare, kind: str
) -> None:
    source = {"sequences": sequences, "lattice": tmp_path / "source" / "Clothing"}[kind]
    if kind == "lattice":
        lattice(source)
    assert not any("stands for time" in warning for warning in prepare_toy(source, kind).warnings)


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
    ],
)
def test_faulty_datamaps(tmp_path: Path, prepare_toy: Prepare, content: str, message: str) -> None:
    source = tmp_path / "source" / "beauty"
    source.mkdir(parents=True)
    (source / "beauty.txt").write_text("1 1 2 3\n")
    (source / "datamaps.json").write_text(content)
    check_error(prepare_toy, source, "s3rec", message)


def lattice(folder: Path, **parts: object) -> None:
    content = {"train": {"0": [2, 0], "1": [1]}, "val": {"0": [1], "1": []}, "test": {"0": [], "1": [0, 2]}, **parts}
    folder.mkdir(parents=True, exist_ok=True)
    for part, users in content.items():
        (folder / f"{part}.json").write_text(json.dumps(users))


@pytest.mark.parametrize("inside", [".", "5-core"])
def test_lattice(tmp_path: Path, prepare_toy: Prepare, inside: str) -> None:
    source = tmp_path / "source" / "Clothing"
    lattice(source / inside)
    np.save(source / "image_feat.npy", np.eye(3))
    prepared = prepare_toy(source, "lattice")
    dataset = load_dataset(prepared.folder, modalities=None)
    split = split_dataset(dataset)
    assert split.kind == "given"
    assert split.item_tokens[split.train.get_items(1)].tolist() == ["2", "0"]
    assert split.item_tokens[split.test.item].tolist() == ["0", "2"]
    assert dataset.features["image"][list(dataset.item_tokens).index("2")].tolist() == [0, 0, 1]
    assert prepared.warnings == ("val.json: 1 users have an empty list", "test.json: 1 users have an empty list")


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
    lattice(tmp_path / "source" / "Clothing", val=users)
    check_error(prepare_toy, tmp_path / "source" / "Clothing", "lattice", message)


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


def test_positions_are_no_times_in_any_kind(sequences: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    dataset = load_dataset(prepare_toy(sequences, "sequences").folder, modalities=None)
    write_mmrec(dataset, tmp_path / "exported")
    assert not load_dataset(
        prepare_toy(tmp_path / "exported", "mmrec", name="Toy", fresh=True).folder, modalities=None
    ).time_known
    table = tmp_path / "exported" / "Toy.csv"
    table.write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,c,3\n")  # from 1: these may be anything
    assert load_dataset(prepare_toy(table, "table", name="Other").folder, modalities=None).time_known


def test_whole_and_broken_times_are_exported_as_they_are(recbole: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    times = ["1700000000.1234567", "1700000000000000002", "1700000000000000001", "3.0", "-2", "1e12"]
    header, *rows = (recbole / "films.inter").read_text().splitlines()
    rows = [f"{row.rpartition(chr(9))[0]}\t{time}" for row, time in zip(rows, times, strict=True)]
    (recbole / "films.inter").write_text("\n".join([header, *rows]) + "\n")
    folder = prepare_toy(recbole, "recbole").folder
    dataset = load_dataset(folder, modalities=None)
    write_mmrec(dataset, tmp_path / "exported", read_source_times(folder))
    lines = [line.split("\t") for line in (tmp_path / "exported" / "films.inter").read_text().splitlines()[1:]]
    assert [(user, item, time) for user, item, time, _ in lines] == [
        ("0", "0", "1700000000.1234567"),
        ("0", "2", "1700000000000000001"),
        ("0", "1", "1700000000000000002"),
        ("1", "1", "-2"),
        ("1", "0", "3.0"),
        ("1", "2", "1e12"),
    ]
    again = prepare_toy(tmp_path / "exported", "mmrec", name="films", fresh=True).folder
    assert split_dataset(load_dataset(again, modalities=None)).sha256 == split_dataset(dataset).sha256


def test_an_export_that_fails_leaves_nothing(
    splits: Path, prepare_toy: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, matrix: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    dataset = load_dataset(prepare_toy(splits, "splits").folder, modalities=None)
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match=r"exported.Clips: no space left on .* needed, .*; free some space there"):
        write_mmrec(dataset, tmp_path / "exported")
    assert list((tmp_path / "exported").iterdir()) == []


def test_two_processes_do_not_export_to_one_folder_at_once(splits: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    dataset, to = load_dataset(prepare_toy(splits, "splits").folder, modalities=None), tmp_path / "exported"
    with (
        FolderLock(to / "Clips", "another"),
        pytest.raises(OutputError, match=r"^the export of Clips to .* is in use by process"),
    ):
        write_mmrec(dataset, to)
    assert list(to.iterdir()) == []


def test_items_without_features_of_their_own_stay_known(splits: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    folder = prepare_toy(splits, "splits").folder
    (folder / "image_feat.missing.txt").write_text("1\n")
    before = load_dataset(folder, modalities=None)
    assert before.covered["image"].tolist() == [False, True, False, True]  # ids 1, 2, 3 are items 3, 1 and 0
    write_mmrec(before, tmp_path / "exported")
    (folder / "image_feat.missing.txt").unlink()
    after = prepare_toy(tmp_path / "exported", "mmrec", name="Clips", fresh=True)
    assert load_dataset(after.folder, modalities=None).covered["image"].tolist() == [False, True, False, True]


def test_an_export_to_mmrec_can_be_imported(splits: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    before = load_dataset(prepare_toy(splits, "splits").folder, modalities=None)
    write_mmrec(before, tmp_path / "exported")
    assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == [
        "Clips.inter",
        "i_id_mapping.csv",
        "image_feat.npy",
        "u_id_mapping.csv",
    ]
    assert (tmp_path / "exported" / "Clips.inter").read_text().splitlines()[:3] == [
        "userID\titemID\ttimestamp\tx_label",
        "0\t0\t0\t0",
        "0\t1\t1\t1",
    ]
    after = load_dataset(prepare_toy(tmp_path / "exported", "mmrec", name="Clips", fresh=True).folder, modalities=None)
    assert split_dataset(after).sha256 == split_dataset(before).sha256
    np.testing.assert_array_equal(after.features["image"], before.features["image"])
    with pytest.raises(OutputError, match=r"Clips\.inter exists; choose an empty folder with --to"):
        write_mmrec(before, tmp_path / "exported")


def test_recbole_keeps_all_columns(recbole: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(recbole, "recbole").folder
    lines = (folder / "films.inter").read_text().splitlines()
    assert lines[0] == "user_id:token\titem_id:token\ttimestamp:float\trating:float"
    assert lines[1] == "7\tx\t30\t3"
    assert (folder / "films.item").read_text() == (recbole / "films.item").read_text()
    split = split_dataset(load_dataset(folder, modalities=None))
    assert split.item_tokens[split.train.items].tolist() == ["y", "x"]  # by time, not by line
    assert split.item_tokens[split.test.item].tolist() == ["x", "z"]  # user 8: y and z tie, the file's order holds


FINE = ["1700000000000000002", "1700000000000000001", "-1.5", "17e17", "1.7e18", "0.1"]


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


def test_features_of_the_source_are_aligned_by_token(sequences: Path, prepare_toy: Prepare) -> None:
    np.save(sequences / "image_feat.npy", np.array([[4.0], [3.0], [2.0], [1.0]]))
    (sequences / "image_feat.tokens.txt").write_text("d\nc\nb\na\n")
    folder = prepare_toy(sequences, "sequences", k_core=3).folder  # drops d
    assert load_dataset(folder, modalities=None).features["image"].tolist() == [[0], [1], [2], [3]]
    assert (folder / "image_feat.tokens.txt").read_text() == "a\nb\nc\n"


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


def test_an_item_with_two_rows_is_refused(sequences: Path, prepare_toy: Prepare) -> None:
    (sequences / "item_text.tsv").write_text("item_id\ttitle\na\tx\nb\ty\na\tz\n")
    check_error(prepare_toy, sequences, "sequences", "item_text.tsv:4: item 'a' occurs before")


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


def test_a_nan_row_is_named_by_item(splits: Path, prepare_toy: Prepare) -> None:
    np.save(splits / "image_feat.npy", np.diag([1, np.nan, 1, 1]))
    check_error(prepare_toy, splits, "splits", "row 1 (item '1') contains NaN")


@pytest.mark.parametrize("label", ["3", "train", "", "-1"])
def test_faulty_mmrec_labels(mmrec: Path, prepare_toy: Prepare, label: str) -> None:
    (mmrec / "baby.inter").write_text(f"userID\titemID\tx_label\n0\t0\t0\n0\t1\t{label}\n")
    check_error(prepare_toy, mmrec, "mmrec", "baby.inter:3: x_label is")


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


def test_features_need_tokens_where_rows_are_not_ids(sequences: Path, prepare_toy: Prepare) -> None:
    np.save(sequences / "image_feat.npy", np.eye(4))
    check_error(prepare_toy, sequences, "sequences", "has no image_feat.tokens.txt next to it")
    (sequences / "image_feat.tokens.txt").write_text("a\nb\nc\nz\n")
    check_error(prepare_toy, sequences, "sequences", "no row for 1 item ('d')")
    np.save(sequences / "image_feat.npy", np.eye(5))
    (sequences / "image_feat.tokens.txt").write_text("a\nb\nc\nd\nz\n")
    check_error(prepare_toy, sequences, "sequences", "rows for 1 item ('z') without interactions")


def test_texts_take_the_first_column_that_is_filled(sequences: Path, recbole: Path) -> None:
    items = read_sequences(sequences, REQUEST).items
    assert read_item_texts(items, ["c", "b", "a", "d"], ["title|keywords"], sequences) == [
        "blue soap",
        "green brush",
        "12 red comb",
        "",
    ]
    films = read_recbole(recbole, REQUEST).items
    assert read_item_texts(films, ["x", "y", "z"], ["movie_title", "class"], recbole) == [
        "Heat. Crime",
        "Babe. Comedy Drama",
        "Odd",
    ]


def test_unknown_text_columns_are_named(sequences: Path) -> None:
    with pytest.raises(DataError, match=r"no text column 'titel'; choose --text from title, keywords"):
        read_item_texts(read_sequences(sequences, REQUEST).items, ["a"], ["titel"], sequences)
    with pytest.raises(DataError, match="has no item texts"):
        read_item_texts(None, ["a"], ["title"], sequences)


def test_clean_text_has_no_characters_that_a_csv_reader_interprets() -> None:
    assert clean_text('a\x00b\t"c"\r\nd\u2028e') == "a b c d e"
    assert clean_text("L'Oréal, 5.1 oz (150 ml)") == "L'Oréal, 5.1 oz (150 ml)"


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


@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_features_of_some_items_are_filled_and_the_others_listed(
    sequences: Path, prepare_toy: Prepare, fill: str
) -> None:
    np.save(sequences / "image_feat.npy", np.array([[4.0, 8.0], [2.0, 0.0], [9.0, 9.0]]))
    (sequences / "image_feat.tokens.txt").write_text("c\na\nd\n")
    folder = prepare_toy(sequences, "sequences", k_core=3, fill=fill).folder  # drops d, which counts no more
    dataset = load_dataset(folder, modalities=None)
    filled = [3, 4] if fill == "mean" else [0, 0]
    assert dataset.features["image"].tolist() == [[0, 0], [2, 0], filled, [4, 8]]  # items a, b, c
    assert dataset.covered["image"].tolist() == [False, True, False, True]
    assert (folder / "image_feat.missing.txt").read_text() == "b\n"
    about = json.loads((folder / "dataset.json").read_text())
    modality = about["modalities"]["image"]
    assert (modality["missing"], modality["coverage"], modality["fill"]) == (1, pytest.approx(2 / 3), fill)
    assert about["inputs"]["fill"] == fill
    other = {"mean": "zero", "zero": "mean"}[fill]
    with pytest.raises(DataError, match="was prepared with another fill; replace it with --fresh"):
        prepare_toy(sequences, "sequences", k_core=3, fill=other)


@pytest.mark.parametrize("kind", ["splits", "recbole", "mmrec", "table", "lattice", "s3rec"])
def test_every_kind_fills_features_of_a_token_file(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, prepare_toy: Prepare
) -> None:
    if kind in ("splits", "recbole", "mmrec"):
        source: Path = request.getfixturevalue(kind)
        items = {"splits": ["3", "1", "0"], "recbole": ["x", "y", "z"], "mmrec": ["0", "1", "2"]}[kind]
        for path in source.glob("*.npy"):
            path.unlink()
    else:
        source, items = tmp_path / "source" / "Own", ["a", "b", "c"]
        source.mkdir(parents=True)
        (source / "Own.csv").write_text("user_id,item_id\nu,a\nu,b\nu,c\n")
        (source / "Own.txt").write_text("u a b c\n")
        for part, item in zip(("train", "val", "test"), items, strict=True):
            (source / f"{part}.json").write_text(json.dumps({"u": [item]}))
    np.save(source / "audio_feat.npy", np.array([[2.0], [4.0]]))
    (source / "audio_feat.tokens.txt").write_text(f"{items[2]}\n{items[0]}\n")
    dataset = load_dataset(prepare_toy(source, kind).folder, modalities=None)
    rows = dict(zip(dataset.item_tokens.tolist(), dataset.features["audio"][:, 0].tolist(), strict=True))
    assert rows == {"": 0.0, items[0]: 4.0, items[1]: 3.0, items[2]: 2.0}
    assert dataset.item_tokens[1:][~dataset.covered["audio"][1:]].tolist() == [items[1]]


def test_filled_rows_of_the_source_do_not_count_for_the_mean(sequences: Path, prepare_toy: Prepare) -> None:
    np.save(sequences / "image_feat.npy", np.array([[4.0], [100.0], [2.0]]))
    (sequences / "image_feat.tokens.txt").write_text("a\nb\nc\n")
    (sequences / "image_feat.missing.txt").write_text("b\n")
    dataset = load_dataset(prepare_toy(sequences, "sequences").folder, modalities=None)
    assert dataset.features["image"][:, 0].tolist() == [0, 4, 100, 2, 3]
    assert dataset.covered["image"].tolist() == [False, True, False, True, False]
    (sequences / "image_feat.missing.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match=r"image_feat\.npy: no item has features of its own"):
        prepare_toy(sequences, "sequences", fresh=True)


def test_tokens_that_differ_only_by_blanks_are_refused(sequences: Path, prepare_toy: Prepare) -> None:
    np.save(sequences / "image_feat.npy", np.eye(3))
    (sequences / "image_feat.tokens.txt").write_text("a\nb\na \n")
    check_error(prepare_toy, sequences, "sequences", "image_feat.tokens.txt: token 'a' occurs twice, once with blanks")


def test_ids_with_separators_of_lines_other_than_line_feeds_survive(
    sequences: Path, prepare_toy: Prepare, tmp_path: Path
) -> None:
    items = ["a\u2028b", "c\u2029d", "e\x85f", "g\xa0h"]
    (sequences / "user_sequences.txt").write_text(f"u\u20281 {' '.join(items)}\n", encoding="utf-8")
    np.save(sequences / "image_feat.npy", np.diag([1.0, 2.0, 3.0]))
    (sequences / "image_feat.tokens.txt").write_text("\n".join(items[:3]) + "\n", encoding="utf-8")
    before = load_dataset(prepare_toy(sequences, "sequences").folder, modalities=None)
    assert before.user_tokens.tolist() == ["", "u\u20281"]
    assert before.item_tokens.tolist() == ["", *items]
    assert before.covered["image"].tolist() == [False, True, True, True, False]
    write_mmrec(before, tmp_path / "exported")
    after = load_dataset(prepare_toy(tmp_path / "exported", "mmrec", name="Toy", fresh=True).folder, modalities=None)
    assert after.item_tokens.tolist() == before.item_tokens.tolist()
    assert after.covered["image"].tolist() == before.covered["image"].tolist()


@pytest.mark.parametrize("kind", ["splits", "lattice", "recbole"])
def test_blanks_around_ids_are_removed_in_every_kind(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, prepare_toy: Prepare
) -> None:
    if kind == "lattice":
        source = tmp_path / "source" / "Own"
        source.mkdir(parents=True)
        for part, item in zip(("train", "val", "test"), ("a ", "b", "c"), strict=True):
            (source / f"{part}.json").write_text(json.dumps({"u": [item]}))
    elif kind == "splits":
        source = request.getfixturevalue(kind)
        (source / "interactions.tsv").write_text("user_id\titem_id\tsplit\n0 \t3\ttrain\n0\t1\tvalid\n0\t0\ttest\n")
    else:
        source = request.getfixturevalue(kind)
        (source / "films.inter").write_text("user_id:token\titem_id:token\n1\tx \n1\ty\n1\tz\n")
        path = source / "films.item"
        path.write_text(path.read_text().replace("x\t", " x\t"))
    prepared = prepare_toy(source, kind)
    dataset = load_dataset(prepared.folder, modalities=None)
    tokens = [*dataset.user_tokens[1:].tolist(), *dataset.item_tokens[1:].tolist()]
    assert [token for token in tokens if token != token.strip()] == []
    assert dataset.n_users == 1
    assert any("blanks around 1 field of" in warning for warning in prepared.warnings)
