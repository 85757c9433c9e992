from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.export_mmrec import write_mmrec
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.errors import DataError
from tests.data.importers.small import check_error

Prepare = Callable[..., Prepared]


def test_positions_are_no_times_in_any_kind(sequences: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    dataset = load_dataset(prepare_toy(sequences, "sequences").folder, modalities=None)
    write_mmrec(dataset, tmp_path / "exported")
    assert not load_dataset(
        prepare_toy(tmp_path / "exported", "mmrec", name="Toy", fresh=True).folder, modalities=None
    ).time_known
    table = tmp_path / "exported" / "Toy.csv"
    table.write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,c,3\n")  # from 1: these may be anything
    assert load_dataset(prepare_toy(table, "table", name="Other").folder, modalities=None).time_known


def test_features_of_the_source_are_aligned_by_token(sequences: Path, prepare_toy: Prepare) -> None:
    np.save(sequences / "image_feat.npy", np.array([[4.0], [3.0], [2.0], [1.0]]))
    (sequences / "image_feat.tokens.txt").write_text("d\nc\nb\na\n")
    folder = prepare_toy(sequences, "sequences", k_core=3).folder  # drops d
    assert load_dataset(folder, modalities=None).features["image"].tolist() == [[0], [1], [2], [3]]
    assert (folder / "image_feat.tokens.txt").read_text() == "a\nb\nc\n"


def test_an_item_with_two_rows_is_refused(sequences: Path, prepare_toy: Prepare) -> None:
    (sequences / "item_text.tsv").write_text("item_id\ttitle\na\tx\nb\ty\na\tz\n")
    check_error(prepare_toy, sequences, "sequences", "item_text.tsv:4: item 'a' occurs before")


def test_a_nan_row_is_named_by_item(splits: Path, prepare_toy: Prepare) -> None:
    np.save(splits / "image_feat.npy", np.diag([1, np.nan, 1, 1]))
    check_error(prepare_toy, splits, "splits", "row 1 (item '1') contains NaN")


def test_features_need_tokens_where_rows_are_not_ids(sequences: Path, prepare_toy: Prepare) -> None:
    np.save(sequences / "image_feat.npy", np.eye(4))
    check_error(prepare_toy, sequences, "sequences", "has no image_feat.tokens.txt next to it")
    (sequences / "image_feat.tokens.txt").write_text("a\nb\nc\nz\n")
    check_error(prepare_toy, sequences, "sequences", "no row for 1 item ('d')")
    np.save(sequences / "image_feat.npy", np.eye(5))
    (sequences / "image_feat.tokens.txt").write_text("a\nb\nc\nd\nz\n")
    check_error(prepare_toy, sequences, "sequences", "rows for 1 item ('z') without interactions")


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
