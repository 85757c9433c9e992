from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.data.diagnostics import item_data
from hellm_recbole.data.diagnostics.warnings import diagnose
from tests.data.diagnostics.small import THREE_EACH, Write, get_figure, list_figures, make_matrix


def test_twins_by_direction(write: Write) -> None:
    tokens = list("abcdefg")
    values = [[1, 0, 0], [2, 0, 0], [0, 1, 0], [0, 1, 0], [0, 3, 0], [0, 0, 0], [0, 0, 0]]
    rows = ["u a 1", "u b 2", "u c 3", "v d 1", "v e 2", "v f 3", "w f 1", "w f 2", "w g 3"]
    found = diagnose(write(rows, features={"image": make_matrix(values, tokens)}))
    # a and b, and c, d and e, of which three are alike; f and g have no direction
    assert list_figures(found, "same features") == [
        ("warning", "image: 5 of 7 items are like another one; 1 of 3 test targets")
    ]
    assert list_figures(found, "zero features") == [("warning", "image: 2 of 7 items")]


@pytest.mark.parametrize(("angle", "n_twins"), [(0.013, 2), (0.015, 0)])
def test_how_near_a_twin_is(write: Write, angle: float, n_twins: int) -> None:
    values = [[1, 0], [np.cos(angle), np.sin(angle)], [0, 1]]  # cos 0.01414 = 0.9999
    found = diagnose(write(THREE_EACH, features={"image": make_matrix(values, "abc")}))
    assert len(list_figures(found, "same features")) == bool(n_twins)
    assert [list_figures(found, name) for name in ("zero features", "filled features", "constant columns")] == [
        [],
        [],
        [],
    ]


def test_of_many_items_only_equal_rows_are_twins(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_data, "EXACT_ITEMS", 2)
    found = diagnose(
        write([*THREE_EACH, "u d 4"], features={"image": make_matrix([[1, 0], [2, 0], [1, 0], [0, 1]], "abcd")})
    )
    assert get_figure(found, "same features") == "image: 2 of 4 items are like another one; 0 of 1 test targets"


def test_single_numbers_are_twins_only_if_equal(write: Write) -> None:
    found = diagnose(write(THREE_EACH, features={"price": make_matrix([[1], [2], [3]], "abc")}))
    assert list_figures(found, "same features") == []


def test_filled_rows_are_a_separate_finding(write: Write) -> None:
    image = make_matrix([[1, 0], [0, 0], [0, 0]], "abc", missing=["b", "c"])
    found = diagnose(write(THREE_EACH, features={"image": image}))
    assert list_figures(found, "filled features") == [("warning", "image: 2 of 3 items have no features of their own")]
    assert [list_figures(found, name) for name in ("same features", "zero features")] == [[], []]


def test_constant_columns_and_uneven_rows(write: Write) -> None:
    values = [[1, 0, 5, 0], [0, 2, 5, 0], [70, 0, 5, 0]]
    found = diagnose(write(THREE_EACH, features={"image": make_matrix(values, "abc")}))
    assert list_figures(found, "constant columns") == [("note", "image: 2 of 4 columns")]
    assert list_figures(found, "uneven features") == [
        ("warning", f"image: the longest row is {4925**0.5 / 29**0.5:.1f} times the median one")
    ]


def test_even_rows_and_columns_that_vary(write: Write) -> None:
    found = diagnose(write(THREE_EACH, features={"image": make_matrix([[1, 0], [0, 2], [9, 1]], "abc")}))
    assert [list_figures(found, name) for name in ("constant columns", "uneven features")] == [[], []]


def test_items_with_the_same_text(write: Write) -> None:
    found = diagnose(
        write([*THREE_EACH, "u d 4", "u e 5"], texts={"a": "comb", "b": "soap", "c": "", "d": "", "e": "comb"})
    )
    assert list_figures(found, "same text") == [("warning", "2 of 5 items are like another one; 1 of 1 test targets")]


def test_items_without_text_have_no_twin(write: Write) -> None:
    assert list_figures(diagnose(write(THREE_EACH, texts={"a": "comb", "b": "", "c": ""})), "same text") == []
