"""Tables of other systems: columns, numbers, and each kind of wrong rank or score as one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from hellm_recbole.errors import DataError
from hellm_recbole.serving.score_tables import Order, read_score_table

NAMED = {"user": "uid", "item": "iid", "rank": "position"}


def write(folder: Path, text: str, name: str = "lists.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_columns_of_rectools_are_the_usual_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "user_id,item_id,score,rank\nu1,i3,0.75,1\nu1,i1,0.5,2\n")
    given = read_score_table(path, {}, None)
    assert (given.user, given.item, given.value.tolist(), given.order) == (
        ["u1", "u1"],
        ["i3", "i1"],
        [0.75, 0.5],
        "score",
    )
    assert read_score_table(path, {}, "rank").value.tolist() == [-1, -2]


def test_columns_are_named_by_the_user(tmp_path: Path) -> None:
    path = tmp_path / "lists.parquet"
    pd.DataFrame({"uid": [1, 1], "iid": [7, 8], "position": [2, 1]}).to_parquet(path)
    given = read_score_table(path, NAMED, None)
    assert (given.user, given.item, given.value.tolist(), given.order) == (["1", "1"], ["7", "8"], [-2, -1], "rank")


def test_recboles_names_of_columns_have_a_type(tmp_path: Path) -> None:
    path = write(tmp_path, "user_id:token,item_id:token,score:float\nu1,i3,-inf\nu1,i1,1e-300\n")
    assert read_score_table(path, {}, None).value.tolist() == [float("-inf"), 1e-300]


def test_all_digits_of_a_score_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "user_id,item_id,score\nu1,i1,0.10000000000000001\nu1,i2,0.10000000000000002\n")
    first, second = read_score_table(path, {}, None).value
    assert first < second


@pytest.mark.parametrize(
    ("text", "by", "sentence"),
    [
        ("user_id,item_id\nu1,i1\n", None, "neither a column 'score' nor a column 'rank' among user_id, item_id"),
        ("user,item_id,score\nu1,i1,1\n", None, "no column 'user_id' among user, item_id, score"),
        ("user_id,item_id,score\nu1,i1,\n", None, "row 1: score is ''; give every row a number"),
        ("user_id,item_id,score\nu1,i1,1\nu1,i2,nan\n", None, "row 2: score is 'nan'"),
        ("user_id,item_id,score\nu1,i1,1\n,i2,2\n", None, "row 2: user_id is empty"),
        ("user_id,item_id,rank\nu1,i1,0\n", None, "row 1: rank is 0; ranks are whole numbers, and the first is 1"),
        ("user_id,item_id,rank\nu1,i1,1.5\n", None, "row 1: rank is 1.5"),
        ("user_id,item_id,rank\nu1,i1,1\nu1,i2,1\n", None, "row 2: user 'u1' has rank 1 twice"),
        ("user_id,item_id,rank\nu1,i1,1\nu1,i2,3\n", None, "user 'u1' has no item of rank 2, but one of rank 3"),
        ("user_id,item_id,rank\nu1,i1,1\n", "score", "there is no column of scores for --by score"),
        (
            "user_id,item_id,score,rank\nu1,i1,1,1\nu1,i2,2,2\n",
            None,
            "row 2: the score of user 'u1' is higher than that of the rank before",
        ),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path: Path, text: str, by: Order | None, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read_score_table(write(tmp_path, text), {}, by)


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "user_id,item_id,score\nu1,i1,1\n")
    with pytest.raises(DataError, match="unknown field 'value'; there are user, item, score, rank"):
        read_score_table(path, {"value": "score"}, None)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (["inf", "1"], "row 1: score is 'inf'; give finite numbers"),
        (["1", "inf"], "row 2: score is 'inf'; give finite numbers"),
        (["1e400", "1"], "row 1: score is '1e400'; give finite numbers"),
        (["100000000000000001", "100000000000000002"], "row 2: score '100000000000000002' has more digits"),
    ],
)
def test_scores_that_64_bits_do_not_hold_are_refused(tmp_path: Path, scores: list[str], message: str) -> None:
    path = tmp_path / "lists.csv"
    path.write_text("user_id,item_id,score\n" + "".join(f"u,i{n},{score}\n" for n, score in enumerate(scores)))
    with pytest.raises(DataError, match=re.escape(message)):
        read_score_table(path, {}, None)


def test_long_equal_scores_and_huge_ranks(tmp_path: Path) -> None:
    path = tmp_path / "lists.csv"
    path.write_text("user_id,item_id,score\nu,a,0.30000000000000004\nu,b,0.30000000000000004\n")
    assert read_score_table(path, {}, None).value.tolist() == [0.30000000000000004] * 2
    path.write_text("user_id,item_id,rank\nu,a,1\nu,b,1e30\n")
    with pytest.raises(DataError, match="row 2: rank is 1e"):
        read_score_table(path, {}, None)
