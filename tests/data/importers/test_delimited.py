from __future__ import annotations

import gzip
import random
import re
from pathlib import Path

import pandas as pd
import pytest

from hellm_recbole.data.importers import delimited
from hellm_recbole.data.importers.delimited import list_pandas_options, read_delimited_columns, read_first_rows

PIECES = ["a", ",", "\n", '"', "\r\n", "\r", " ", '""', "é", "\x00", "\t", "x,y\n", "x,y\n", '"q",z\n', '"a\nb",c\n']


def read_slowly(path: Path) -> list[list[str]]:
    rows = pd.read_csv(path, **list_pandas_options(path)).fillna("")
    return [rows[column].tolist()[1:] for column in rows]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_any_text_is_read_as_pandas_reads_the_whole_file(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BLOCK_ROWS", 3)
    draw, path, n_same = random.Random(5), tmp_path / f"t.{ending}", 0
    separator = "," if ending == "csv" else "\t"
    for _ in range(300):
        body = "".join(draw.choices(PIECES, k=draw.randint(1, 12))).replace(",", separator)
        path.write_bytes(f"h{separator}i\n{body}".encode())
        try:
            expected = read_slowly(path)
        except ValueError as error:
            with pytest.raises(ValueError, match=re.escape(str(error))):
                read_delimited_columns(path, {0: True, 1: False}, 2)
            continue
        if len(expected) == 2:
            columns = read_delimited_columns(path, {0: True, 1: False}, 2)
            assert [columns[0].tolist(), columns[1].tolist()] == expected, body
            n_same += 1
    assert n_same > 50


def test_columns_of_many_blocks_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)
    path, rows = tmp_path / "t.csv.gz", [(f"u{n % 7}", f"i{n % 11}", str(n)) for n in range(500)]
    with gzip.open(path, "wt") as file:
        file.write("u,i,t\n" + "".join(",".join(row) + "\n" for row in rows))
    columns = read_delimited_columns(path, {0: True, 2: False}, 3)
    assert list(zip(columns[0], columns[2], strict=True)) == [(user, time) for user, _, time in rows]
    assert columns[0].cat.categories.tolist() == [f"u{n}" for n in range(7)]
    assert read_first_rows(path, 2).to_numpy().tolist() == [list(row) for row in rows[:2]]


def test_the_line_of_a_broken_row_is_said_where_arrow_stops(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("u,i\n" + "a,b\n" * 600_000 + "a,b,c\n" + "a,b\n" * 10)
    with pytest.raises(ValueError, match="Expected 2 fields in line 600002, saw 3"):
        read_delimited_columns(path, {0: True, 1: True}, 2)
