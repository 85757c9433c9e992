from __future__ import annotations

import pytest
from rich.cells import cell_len

from hellm_recbole.system.columns import fit_parts, format_duration, shorten_name

PARTS = [("epoch 12 of at most 100", "epoch 12/100", "12/100"), ("N@20 0.1250",), ("bpr 0.5000 reg 0.2500", "")]


@pytest.mark.parametrize("width", range(90))
def test_a_line_is_as_long_as_the_width_allows_and_keeps_every_number(width: int) -> None:
    line = fit_parts(PARTS, width)
    assert len(line) <= max(width, len("12/100 N@20 0.1250"))
    assert "N@20 0.1250" in line
    assert "12" in line
    assert "100" in line
    assert line.count("0.") in (1, 3), "the losses are there or not; none of them is cut"


def test_wide_characters_take_two_columns() -> None:
    assert fit_parts([("電影", "x")], 3) == "x"
    assert fit_parts([("電影", "x")], 4) == "電影"


@pytest.mark.parametrize("width", range(40))
def test_a_name_is_not_cut_inside_a_number(width: int) -> None:
    name = shorten_name("Model-1234567 on data-7654321", width)
    assert len(name) <= max(width, 8)
    digits = "".join(character if character.isdecimal() else " " for character in name).split()
    assert set(digits) <= {"1234567", "7654321"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1.0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3569.0, "59 min"), (3599.0, "1 h 0 min"), (172_800.0, "2 d 0 h")],
)
def test_a_duration_is_rounded_to_its_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("name", ["BPR on x", "Pop on ml", "SASRec on 豆瓣电影评论"])
@pytest.mark.parametrize("width", [1, 5, 8, 12, 16, 17, 18])
def test_every_name_fits_or_is_cut(name: str, width: int) -> None:
    short = shorten_name(name, width)
    assert cell_len(short) <= max(width, 8)
    assert short
