from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.tsv import read_lines, read_table
from hellm_recbole.errors import DataError


def write_file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "t.tsv"
    path.write_bytes(content)
    return path


def test_fields_are_read_unchanged(tmp_path: Path) -> None:
    table = read_table(write_file(tmp_path, b'\xef\xbb\xbfa\tb\r\nNA\t"x\r\n007\t\n1e3\tnull\n'), typed=False)
    assert table.frame["a"].tolist() == ["NA", "007", "1e3"]
    assert table.frame["b"].tolist() == ['"x', "", "null"]
    assert table.line(1).endswith("t.tsv:3")


def test_four_gigabytes_without_a_line_end_are_refused_without_reading_them(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    with path.open("wb") as stream:
        stream.write(b"a\tb\n")
        stream.truncate(4 << 30)  # sparse: takes no space
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"t\.tsv:2: the line is longer than 16 MiB; write each row on its own line"):
        read_table(path, typed=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_a_missing_last_line_end_loses_nothing(tmp_path: Path) -> None:
    assert read_table(write_file(tmp_path, b"a\n1\n2"), typed=False).frame["a"].tolist() == ["1", "2"]


def test_unusual_line_breaks_inside_a_field_do_not_end_the_line(tmp_path: Path) -> None:
    table = read_table(write_file(tmp_path, "a\tb\nx\u2028y\t1\r2\n".encode()), typed=False)
    assert table.frame.to_numpy().tolist() == [["x\u2028y", "1\r2"]]


@pytest.mark.parametrize(
    ("content", "typed", "message"),
    [
        (b"", False, "t.tsv is empty"),
        (b" \n\n", False, "t.tsv is empty"),
        (b"a\tb\n", False, "no row after the header"),
        (b"a\ta\n1\t2\n", False, "t.tsv:1: column 'a' occurs twice"),
        (b"a\tb\n1\t2\n1\n", False, "t.tsv:3: the line has 1 fields, but the header has 2"),
        (b"a\tb\n1\t2\n1\t2\t3\n", False, "t.tsv:3: the line has 3 fields, but the header has 2"),
        (b"a\tb\n1\t2\n\n1\t2\n", False, "t.tsv:3: the line has 1 fields"),
        (b"a\tb\n1\t2\n\xff\t2\n", False, "t.tsv:3: not UTF-8"),
        (b"a:token\tb\n1\t2\n", True, "t.tsv:1: header field 'b' is not `name:type`"),
        (b"a:word\n1\n", True, "header field 'a:word'"),
        (b"a:token\ta:float\n1\t2\n", True, "column 'a' occurs twice"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, content: bytes, typed: bool, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_table(write_file(tmp_path, content), typed=typed)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.tsv cannot be read: No such file"):
        read_lines(tmp_path / "absent.tsv")


@pytest.mark.parametrize("field", ["x", "", "nan", "inf", "-inf", "1,5", "0x1g"])
def test_a_field_that_is_no_finite_number_is_named_with_its_line(tmp_path: Path, field: str) -> None:
    table = read_table(write_file(tmp_path, f"a\tb\n1\t.\n{field}\t.\n".encode()), typed=False)
    with pytest.raises(DataError, match=r"t\.tsv:3: a is .* not a finite number"):
        table.numbers("a")


def test_numbers(tmp_path: Path) -> None:
    values = read_table(write_file(tmp_path, b"a\n1\n-2.5\n1e3\n881250949\n"), typed=False).numbers("a")
    np.testing.assert_array_equal(values, [1, -2.5, 1000, 881250949])


def test_required_columns_must_be_there_and_filled(tmp_path: Path) -> None:
    table = read_table(write_file(tmp_path, b"a\tb\n1\t2\n\t2\n"), typed=False)
    with pytest.raises(DataError, match=r"t\.tsv:1: no column 'c' among a, b; write it"):
        table.require(("c",), "write it")
    with pytest.raises(DataError, match=r"t\.tsv:3: a is empty"):
        table.require(("b", "a"), "write it")
