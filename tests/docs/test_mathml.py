"""Formulas become MathML."""

from __future__ import annotations

import pytest

pytest.importorskip("docutils", reason="formulas of the site need the group docs")

from hellm_docs.mathml import convert_formula


def test_a_formula_of_a_loss_is_converted() -> None:
    formula = convert_formula(r"L = -\frac{1}{B}\sum_{(u,i,j)} \ln \sigma(s_{ui} - s_{uj})", as_block=True)
    assert formula.startswith("<math")
    assert all(part in formula for part in ('display="block"', "<mfrac>", "<munder>"))


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\\nothing"):
        convert_formula(r"\nothing", as_block=False)
