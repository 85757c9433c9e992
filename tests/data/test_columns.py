"""Columns of Arrow's text equal what pandas and Python make of the same fields."""

from __future__ import annotations

import io
import random

import numpy as np
import pandas as pd
import pytest

from hellm_recbole.data.columns import (
    convert_numbers,
    format_integers,
    make_codes,
    map_tokens,
    number_tokens,
    read_integers,
    write_rows,
)


def text(*fields: str) -> pd.Series[str]:
    return pd.Series(fields, dtype="str")


def test_tokens_are_numbered_in_the_order_of_first_occurrence() -> None:
    draw = random.Random(3)
    fields = [draw.choice("abcdefg") for _ in range(200)]
    numbers, tokens = number_tokens(text(*fields))
    assert tokens.tolist() == list(dict.fromkeys(fields))
    assert [tokens[number] for number in numbers] == fields
    again, same = number_tokens(text(*fields).astype("category"))
    assert np.array_equal(numbers, again)
    assert same.tolist() == tokens.tolist()


@pytest.mark.parametrize("field", ["03", "+3", " 3", "3.0", "-0", "", "x", "1234567890123456789", "\u0663"])
def test_only_numbers_as_python_writes_them_are_integers(field: str) -> None:
    assert read_integers(text("7", field)) is None


def test_integers_are_read_and_written_without_loss() -> None:
    values = np.array([0, 9, 10, 99, 100, -1, -10, 10**17, 10**18 - 1, -(10**18) + 1])
    written = format_integers(values)
    assert written.tolist() == [str(value) for value in values]
    read = read_integers(written)
    assert read is not None
    assert np.array_equal(read, values)


def test_numbers_are_those_of_pandas_and_other_text_is_nan() -> None:
    fields = ["1", "2.5", "-1e3", "x", "", "nan", "007"]
    assert np.array_equal(
        convert_numbers(text(*fields)), pd.to_numeric(pd.Series(fields), errors="coerce"), equal_nan=True
    )
    assert convert_numbers(text("12", "-3")).tolist() == [12.0, -3.0]


def test_rows_of_text_and_codes_are_written() -> None:
    stream = io.BytesIO()
    codes = make_codes(np.array([1, 0, 1]), ["a", "b"])
    write_rows(stream, [codes, text("x", "y", "z")])
    assert stream.getvalue() == b"b\tx\na\ty\nb\tz\n"
    assert map_tokens(codes, {"b": 5}).tolist() == [5, -1, 5]
