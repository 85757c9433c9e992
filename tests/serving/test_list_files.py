from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.serving.list_files import read_histories, read_names, write_lists

LISTS = pd.DataFrame({"user_id": ["a", "b"], "rank": [1, 1], "item_id": ["x", "y"], "score": [0.5, 0.25]})


def test_every_format_gives_the_same_histories(tmp_path: Path) -> None:
    table = pd.DataFrame({"user_id": ["1", "2", "1"], "item_id": ["b", "c", "a"], "timestamp": [100, 2, 9]})
    table.to_csv(tmp_path / "h.csv", index=False)
    table.to_csv(tmp_path / "h.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "h.parquet", index=False)
    (tmp_path / "h.txt").write_text("a\tb\n\nc\n")
    (tmp_path / "h.jsonl").write_text('["a", "b"]\n{"user_id": 2, "items": ["c"]}\n')
    for name in ("csv", "tsv", "parquet", "txt", "jsonl"):
        found = read_histories(tmp_path / f"h.{name}")
        assert found == {"1": ["a", "b"], "2": ["c"]}, name


def test_rows_without_times_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("user_id,item_id\nu,b\nu,a\nv,007\n")
    assert read_histories(tmp_path / "h.csv") == {"u": ["b", "a"], "v": ["007"]}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("h.csv", "user,item\n1,2\n", "has no column 'user_id' among user, item; rename one"),
        ("h.jsonl", "[1\n", "h.jsonl:1 is not JSON"),
        ("h.jsonl", '{"user_id": 1}\n', "h.jsonl:1 has no list of items"),
        ("h.txt", "\n", "has no history; give one in each line"),
        ("h.parquet", "x", "cannot be read as a table"),
        ("h.txt", None, "h.txt cannot be read"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, name: str, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=sentence):
        read_histories(tmp_path / name)


def test_names_are_read_from_lines_or_a_column(tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("a\n b \na\n")
    (tmp_path / "users.csv").write_text("item_id,user_id\nx,a\ny,b\n")
    assert read_names(tmp_path / "users.txt", "user_id") == ["a", "b"]
    assert read_names(tmp_path / "users.csv", "user_id") == ["a", "b"]
    assert read_names(tmp_path / "users.csv", "item_id") == ["x", "y"]


def test_lists_are_written_by_ending_or_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("new/lists.csv", "lists.parquet", "lists.jsonl"):
        write_lists(LISTS, tmp_path / name)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new/lists.csv"), LISTS)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "lists.parquet"), LISTS)
    lines = (tmp_path / "lists.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == LISTS.to_dict("records")
    write_lists(LISTS, None)
    assert capsys.readouterr().out == "user_id,rank,item_id,score\na,1,x,0.5\nb,1,y,0.25\n"
    with pytest.raises(OutputError, match=r"the ending must be .csv, .parquet, .jsonl"):
        write_lists(LISTS, tmp_path / "lists.xlsx")
