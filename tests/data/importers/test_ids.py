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
from tests.data.importers.small import read_sequences

Prepare = Callable[..., Prepared]


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


def test_blanks_around_ids_are_removed_and_counted(source: Path, prepare_toy: Prepare) -> None:
    """Without times, rows of the user `u1 ` and rows of `u1` are in one order."""
    (source / "shop.csv").write_text("user_id,item_id\nu1 ,a\nu1, b\n u1,c\nu2,a \n")
    (source / "shop_items.csv").write_text("item_id,title\na ,comb\nb,brush\n")
    (source / "image_feat.tokens.txt").write_text("a\nb \nc\n")
    np.save(source / "image_feat.npy", np.eye(3))
    prepared = prepare_toy(source, "table")
    assert read_sequences(prepared) == {"u1": ["a", "b"], "u2": ["a"]}  # c is the test item
    for warning in (
        "shop.csv: blanks around 2 fields of user_id were removed, so that 'u1 ' is read as 'u1'",
        "shop.csv: blanks around 2 fields of item_id were removed, so that ' b' is read as 'b'",
        "shop_items.csv: blanks around 1 field of item_id were removed, so that 'a ' is read as 'a'",
    ):
        assert warning in prepared.warnings
        assert f"- {warning}\n" in (prepared.folder / "README.md").read_text()
    assert "a\tcomb" in (prepared.folder / "shop.item").read_text()
    assert load_dataset(prepared.folder, modalities=None).features["image"].tolist()[1:] == np.eye(3).tolist()


def test_ids_that_are_blank_or_become_one(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text("user_id,item_id\nu1,a\nu1,  \nu1,c\n")
    with pytest.raises(DataError, match="item_id is empty"):
        prepare_toy(source, "table")
    (source / "shop.csv").write_text("user_id,item_id\nu1,a\nu1,b\nu1,c\n")
    (source / "shop_items.csv").write_text("item_id,title\na,x\na ,y\n")
    with pytest.raises(DataError, match=r"shop_items\.csv: row 2: item 'a' occurs before"):
        prepare_toy(source, "table")
