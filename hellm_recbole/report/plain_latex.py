r"""LaTeX tables of texts, for tables that have neither groups nor marks; the document needs `\usepackage{booktabs}`."""

from __future__ import annotations

from collections.abc import Sequence

from hellm_recbole.report.escaping import escape_latex


def render_plain_latex(lines: Sequence[Sequence[str]], caption: str, *, label: str) -> str:
    r"""Render lines of texts as a LaTeX `table` environment. The first column is aligned to the left.

    Args:
        lines: texts of the header and of each line, not escaped.
        caption: the caption, in LaTeX.
        label: name of the table for `\ref`.
    """
    header, *rows = [" & ".join(map(escape_latex, line)) + r" \\" for line in lines]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\scriptsize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{caption}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(lines[0]) - 1)}}}",
            r"\toprule",
            header,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
