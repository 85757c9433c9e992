"""Files in the layouts of TREC, MMRec and NumPy, written here by hand, and how their format is recognised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.errors import DataError, SettingsError
from hellm_recbole.serving.score_files import read_score_file
from hellm_recbole.serving.score_tables import GivenMatrix, GivenPairs


def write(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def read_pairs(path: Path, **options: object) -> GivenPairs:
    given = read_score_file(path, **options)  # type: ignore[arg-type]
    assert isinstance(given, GivenPairs)
    return given


@pytest.mark.parametrize("name", ["my.run", "my.txt", "my.trec"])
def test_the_scores_of_a_trec_run_give_the_order(tmp_path: Path, name: str) -> None:
    given = read_pairs(write(tmp_path, "u1 Q0 i3 0 2.5 tag\nu1\tQ0\ti1\t0\t3.5\ttag\n", name))
    assert (given.user, given.item, given.value.tolist()) == (["u1", "u1"], ["i3", "i1"], [2.5, 3.5])
    assert (given.order, given.form) == ("score", "trec")


def test_mmrecs_lists_have_its_numbers_or_the_ids_behind_them(tmp_path: Path) -> None:
    path = write(tmp_path, "id\ttop_0\ttop_1\n0\t2\t1\n1\t0\t2\n", "LightGCN-shop-idx0-top2-Nov-28.csv")
    given = read_pairs(path)
    assert (given.user, given.item) == (["0", "0", "1", "1"], ["2", "1", "0", "2"])
    assert (given.value.tolist(), given.order, given.form) == ([-1, -2, -1, -2], "rank", "mmrec")
    write(tmp_path, "user_id\tuserID\nanna\t0\nbert\t1\n", "u_id_mapping.csv")
    write(tmp_path, "item_id\titemID\ncup\t0\npan\t1\npot\t2\n", "i_id_mapping.csv")
    given = read_pairs(path, ids=tmp_path)
    assert (given.user, given.item) == (["anna", "anna", "bert", "bert"], ["pot", "pan", "cup", "pot"])
    write(tmp_path, "item_id\titemID\ncup\t0\n", "i_id_mapping.csv")
    with pytest.raises(DataError, match="the mapping has no item '2'"):
        read_pairs(path, ids=tmp_path)


def test_arrays_of_the_best_items_of_each_user(tmp_path: Path) -> None:
    path = tmp_path / "topk.npz"
    items = np.array([["i3", "i1"], ["i2", "i3"]])
    np.savez(path, user_id=np.array(["u1", "u2"]), item_id=items, score=np.array([[0.5, 0.25], [1, 1]], np.float32))
    given = read_pairs(path)
    assert (given.user, given.item) == (["u1", "u1", "u2", "u2"], ["i3", "i1", "i2", "i3"])
    assert given.value.tolist() == [0.5, 0.25, 1, 1]
    np.savez(path, user_id=np.array([1, 2]), item_id=np.array([[3, 1], [2, 3]]))
    given = read_pairs(path)
    assert (given.item, given.value.tolist(), given.order) == (["3", "1", "2", "3"], [-1, -2, -1, -2], "rank")


def test_recboles_scores_of_all_items_have_a_column_of_padding(tmp_path: Path) -> None:
    path, score = tmp_path / "full.npz", np.array([[-np.inf, 0.5, 0.25]], np.float32)
    np.savez(path, user_id=np.array(["u1"]), item_id=np.array(["[PAD]", "i3", "i1"]), score=score)
    given = read_score_file(path)
    assert isinstance(given, GivenMatrix)
    assert (given.user, given.item, given.score.tolist()) == (["u1"], ["i3", "i1"], [[0.5, 0.25]])


def test_wrong_files_are_one_sentence(tmp_path: Path) -> None:
    table = write(tmp_path, "user_id,item_id,score\nu1,i1,1\n", "lists.csv")
    trec = write(tmp_path, "u1 Q0 i1 1 1.0 tag\nu1 Q0 i1\n", "short.run")
    for path, options, error, sentence in (
        (tmp_path / "none.csv", {}, DataError, "cannot be read: there is no such file"),
        (write(tmp_path, "some text\n", "a.doc"), {}, DataError, "no format that is known; name a table"),
        (table, {"ids": tmp_path}, SettingsError, "--ids belongs to lists of MMRec"),
        (trec, {}, DataError, "short.run:2 has 3 fields, not the 6 of a TREC run"),
        (trec, {"by": "rank"}, SettingsError, "--columns and --by belong to tables"),
        (table, {"form": "mmrec"}, DataError, "the header is 'user_id,item_id,score', not id, top_0"),
        (write(tmp_path, "no zip", "bad.npz"), {}, DataError, "cannot be read as arrays"),
    ):
        with pytest.raises(error, match=sentence):
            read_score_file(path, **options)  # type: ignore[arg-type]


def test_arrays_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    path, users, two = tmp_path / "a.npz", np.array(["u1"]), np.array(["i1", "i2"])
    for arrays, sentence in (
        ({"user_id": users}, r"needs the arrays user_id \[B\] and item_id"),
        ({"user_id": users, "item_id": two}, "1 users do not fit item_id"),
        ({"user_id": users, "item_id": two, "score": np.zeros((1, 3))}, "score has the shape"),
        ({"user_id": users, "item_id": two, "score": np.array([[1, np.nan]])}, "a score of user 'u1' is NaN"),
        ({"user_id": users, "item_id": two, "score": np.array([["a", "b"]])}, "the scores are of type <U1"),
        ({"user_id": np.array(["u1", None], dtype=object), "item_id": two}, "cannot be read as arrays"),
    ):
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=sentence):
            read_score_file(path)
