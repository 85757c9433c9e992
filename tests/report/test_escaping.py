"""Escapes: a spreadsheet, Markdown and LaTeX see texts of run results as texts."""

from __future__ import annotations

import pytest

from hellm_recbole.report.escaping import escape_csv, escape_latex, escape_markdown


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "  =1"])
def test_a_formula_becomes_a_text(text: str) -> None:
    assert escape_csv(text) == f"'{text}"


def test_numbers_and_other_texts_stay_as_they_are() -> None:
    assert [escape_csv(value) for value in (-0.5, 3, None, "Pop")] == [-0.5, 3, None, "Pop"]


def test_control_characters_are_dropped() -> None:
    assert escape_csv("a\x1b[2Jb") == "ab"
    assert escape_markdown("a\x1b[2J*b*") == r"a\*b\*"


def test_latex_is_ascii() -> None:
    assert escape_latex("50% \u00b1 \u00e9 \u4e2d") == r"50\% $\pm$ e ?"
