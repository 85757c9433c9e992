from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.atomic import item_texts, load_dataset, read_manifest
from hellm_recbole.data.catalog import Prepared, dataset_settings, feature_settings, prepare
from hellm_recbole.data.sources import clean, read_recbole, read_sequences
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError

Prepare = Callable[..., Prepared]

SHARED = Path(__file__).resolve().parents[3] / "shared" / "datasets"


def fails(prepare_toy: Prepare, source: Path, kind: str, message: str) -> None:
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
        "image_feat.npy: 1 rows belong to no item of the interactions and were left out"
    ]
    split = split_dataset(dataset)
    assert (split.kind, split.test.user.tolist(), split.test.item.tolist()) == ("given", [1, 2], [3, 2])


def test_mmrec(mmrec: Path, prepare_toy: Prepare) -> None:
    dataset = load_dataset(prepare_toy(mmrec, "mmrec").folder, modalities=None)
    assert dataset.part is not None
    assert dataset.time is not None
    assert (dataset.part.tolist(), dataset.time.tolist()) == ([0, 1, 2, 0], [11, 12, 13, 9])
    assert dataset.time_known
    assert dataset.features["text"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_recbole_keeps_all_columns(recbole: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(recbole, "recbole").folder
    lines = (folder / "films.inter").read_text().splitlines()
    assert lines[0] == "user_id:token\titem_id:token\ttimestamp:float\trating:float"
    assert lines[1] == "7\tx\t30\t3"
    assert (folder / "films.item").read_text() == (recbole / "films.item").read_text()
    split = split_dataset(load_dataset(folder, modalities=None))
    assert split.item_tokens[split.train.items].tolist() == ["y", "x"]  # by time, not by line
    assert split.item_tokens[split.test.item].tolist() == ["x", "z"]  # user 8: y and z tie, the file's order holds


def test_recbole_without_times_uses_the_files_order(recbole: Path, prepare_toy: Prepare) -> None:
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
        ("u1 a\n\nu2 b\n", "user_sequences.txt:2: needs a user and at least one item"),
        ("u1 a\nu2\n", "user_sequences.txt:2: needs a user and at least one item"),
        ("u1 a\nu2 b\nu1 c\n", "user_sequences.txt:3: user 'u1' is on line 1 already"),
        ('u1 a"b\n', "holds a quote"),
    ],
)
def test_faulty_sequences(sequences: Path, prepare_toy: Prepare, content: str, message: str) -> None:
    (sequences / "user_sequences.txt").write_text(content)
    fails(prepare_toy, sequences, "sequences", message)


def test_an_item_described_twice(sequences: Path, prepare_toy: Prepare) -> None:
    (sequences / "item_text.tsv").write_text("item_id\ttitle\na\tx\nb\ty\na\tz\n")
    fails(prepare_toy, sequences, "sequences", "item_text.tsv:4: item 'a' occurs before")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id\titem_id\n0\t1\n", "interactions.tsv:1: no column 'split'"),
        ("user_id\titem_id\tsplit\n0\t1\tdev\n", "interactions.tsv:2: split is 'dev'"),
        ("user_id\titem_id\tsplit\n0\t\ttrain\n", "interactions.tsv:2: item_id is empty"),
        ("user_id\titem_id\tsplit\n0\t4\ttrain\n", "image_feat.npy: no row for 1 item ('4')"),
        ("user_id\titem_id\tsplit\n0\t01\ttrain\n", "item '01' is not a row number"),
        ("user_id\titem_id\tsplit\ttimestamp\n0\t1\ttrain\tnoon\n", "interactions.tsv:2: timestamp is 'noon'"),
    ],
)
def test_faulty_splits(splits: Path, prepare_toy: Prepare, content: str, message: str) -> None:
    (splits / "interactions.tsv").write_text(content)
    fails(prepare_toy, splits, "splits", message)


def test_a_nan_row_is_named_by_item(splits: Path, prepare_toy: Prepare) -> None:
    np.save(splits / "image_feat.npy", np.diag([1, np.nan, 1, 1]))
    fails(prepare_toy, splits, "splits", "row 1 (item '1') holds NaN")


@pytest.mark.parametrize("label", ["3", "train", "", "-1"])
def test_faulty_mmrec_labels(mmrec: Path, prepare_toy: Prepare, label: str) -> None:
    (mmrec / "baby.inter").write_text(f"userID\titemID\tx_label\n0\t0\t0\n0\t1\t{label}\n")
    fails(prepare_toy, mmrec, "mmrec", "baby.inter:3: x_label is")


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
    fails(prepare_toy, recbole, "recbole", message)


def test_features_need_tokens_where_rows_are_not_ids(sequences: Path, prepare_toy: Prepare) -> None:
    np.save(sequences / "image_feat.npy", np.eye(4))
    fails(prepare_toy, sequences, "sequences", "has no image_feat.tokens.txt beside it")
    (sequences / "image_feat.tokens.txt").write_text("a\nb\nc\nz\n")
    fails(prepare_toy, sequences, "sequences", "no row for 1 item ('d')")
    np.save(sequences / "image_feat.npy", np.eye(5))
    (sequences / "image_feat.tokens.txt").write_text("a\nb\nc\nd\nz\n")
    fails(prepare_toy, sequences, "sequences", "rows for 1 item ('z') that no interaction has")


def test_texts_take_the_first_column_that_is_filled(sequences: Path, recbole: Path) -> None:
    items = read_sequences(sequences, "Toy").items
    assert item_texts(items, ["c", "b", "a", "d"], ["title|keywords"], sequences) == [
        "blue soap",
        "green brush",
        "12 red comb",
        "",
    ]
    films = read_recbole(recbole, "films").items
    assert item_texts(films, ["x", "y", "z"], ["movie_title", "class"], recbole) == [
        "Heat. Crime",
        "Babe. Comedy Drama",
        "Odd",
    ]


def test_unknown_text_columns_are_named(sequences: Path) -> None:
    with pytest.raises(DataError, match=r"no text column 'titel'; choose --text among title, keywords"):
        item_texts(read_sequences(sequences, "Toy").items, ["a"], ["titel"], sequences)
    with pytest.raises(DataError, match="has no item texts"):
        item_texts(None, ["a"], ["title"], sequences)


def test_clean_leaves_nothing_that_a_csv_reader_would_interpret() -> None:
    assert clean('a\x00b\t"c"\r\nd\u2028e') == "a b c d e"
    assert clean("L'Oréal, 5.1 oz (150 ml)") == "L'Oréal, 5.1 oz (150 ml)"


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions", "cold"),
    [
        ("Beauty", 22_363, 12_101, 198_502, 33),
        ("Toys", 19_412, 11_924, 167_597, 48),
        ("TikTok", 9_308, 6_710, 68_722, 465),
    ],
)
def test_the_papers_counts(root: Path, name: str, users: int, items: int, interactions: int, cold: int) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {name} in ../shared/datasets")
    settings = dataset_settings(name, None, {"text": []})
    prepared = prepare(name, SHARED / name, settings, feature_settings({}), root, fresh=False, progress=False)
    dataset = load_dataset(prepared.folder, modalities=None)
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (users, items, interactions)
    assert dataset.n_dropped == 0
    assert items - len(np.unique(split_dataset(dataset).train.items)) == cold
