from __future__ import annotations

from hellm_recbole.report.plain_latex import render_plain_latex


def test_a_table_with_escaped_cells() -> None:
    text = render_plain_latex([["Row", "a_b"], ["x & y", "50%"]], r"\emph{Caption}.", label="tab:x")
    assert r"Row & a\_b \\" in text
    assert r"x \& y & 50\% \\" in text
    assert r"\begin{tabular}{lr}" in text
    assert r"\caption{\emph{Caption}.}" in text
    assert r"\label{tab:x}" in text
    assert text.count("{") == text.count("}")
