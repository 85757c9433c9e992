"""Rows of text made by Arrow equal those that Python joins."""

from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.data.text_rows import iterate_blocks, join_rows, take_tokens, wrap_tokens


@pytest.mark.parametrize(("n_rows", "size"), [(0, 3), (1, 3), (3, 3), (10, 3)])
def test_blocks_cover_each_row_once(n_rows: int, size: int) -> None:
    assert [row for block in iterate_blocks(n_rows, size) for row in range(block.start, block.stop)] == [*range(n_rows)]


def test_rows_are_fields_with_tabs_between() -> None:
    first, second = ["a", "", "\u00fc \u4e2d"], ["1", "22", ""]
    expected = "".join(f"{a}\t{b}\n" for a, b in zip(first, second, strict=True)).encode()
    assert join_rows([wrap_tokens(first), wrap_tokens(second)]) == expected
    assert join_rows([wrap_tokens(first)]) == "a\n\n\u00fc \u4e2d\n".encode()
    assert join_rows([wrap_tokens(first).slice(1), wrap_tokens(second).slice(1)]) == expected.split(b"\n", 1)[1]


def test_tokens_are_taken_by_their_places() -> None:
    tokens = wrap_tokens(np.array(["x", "y", "z"], dtype=object))
    assert take_tokens(tokens, np.array([2, 0, 2])).to_pylist() == ["z", "x", "z"]
