from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.serving.list_files import check_output, read_histories, read_names, write_lists

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


@pytest.mark.parametrize("times", [("9", "10", "8"), ("2020-01-09", "2020-01-10", "2020-01-08T23:00:00")])
def test_times_are_sorted_as_numbers_or_dates(tmp_path: Path, times: tuple[str, str, str]) -> None:
    pd.DataFrame({"user_id": "u", "item_id": ["b", "c", "a"], "timestamp": times}).to_csv(tmp_path / "h.CSV")
    assert read_histories(tmp_path / "h.CSV") == {"u": ["a", "b", "c"]}


def test_ids_are_read_as_in_datasets(tmp_path: Path) -> None:
    pd.DataFrame({"user_id": [1.0, 2.0], "item_id": [7.0, 8.0]}).to_parquet(tmp_path / "h.Parquet")
    assert read_histories(tmp_path / "h.Parquet") == {"1": ["7"], "2": ["8"]}
    pd.DataFrame({"user_id": [1.0, None], "item_id": ["7", "8"]}).to_parquet(tmp_path / "h.parquet")
    with pytest.raises(DataError, match="row 2: user_id is empty"):
        read_histories(tmp_path / "h.parquet")
    for name, text in (("h.tsv", "user_id\titem_id\n1\t7\n"), ("h.TSV", "user_id\titem_id\n1\t7\n"), ("h.txt", "7\n")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read_histories(tmp_path / name) == {"1": ["7"]}


def test_rows_without_times_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("user_id,item_id\nu,b\nu,a\nv,007\n")
    assert read_histories(tmp_path / "h.csv") == {"u": ["b", "a"], "v": ["007"]}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("h.csv", "user_id,item_id,timestamp\nu,a,9\nu,b,\nu,c,10\n", "h.csv: row 2: timestamp is empty"),
        ("h.csv", "user_id,item_id,timestamp\nu,a,2020-01-03\nu,b,9\n", "row 2: time '9' is neither"),
        ("h.csv", "user_id,item_id,timestamp\nu,a,03.01.2021\nu,b,03.02.2020\n", "row 1: time '03.01.2021' is"),
        ("h.csv", "user_id,item_id\nu,a,b\n", "cannot be read as a table: .*Expected 2 fields in line 2, saw 3"),
        ("h.csv", "user_id,item_id\nu,a\n ,b\n", "h.csv: row 2: user_id is empty; give every row a value"),
        ("h.csv", "user_id,item_id\nu,a\nu\n", "h.csv: row 2: item_id is empty"),
        ("h.jsonl", '{"user_id": "u", "items": ["a"]}\n\n{"user_id": "u", "items": []}\n', "h.jsonl:3: user 'u' has a"),
        ("h.txt", "a\0b\n", "is not a text file; name a text file, or a table"),
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


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("")
    for name, sentence in (("folder.csv", "is a folder; name a file"), ("file/lists.csv", "cannot make folder")):
        with pytest.raises(OutputError, match=sentence):
            check_output(tmp_path / name)
    with pytest.raises(DataError, match=r"folder.csv is a folder; name a text file, or a table"):
        read_histories(tmp_path / "folder.csv")
