"""Escape texts of run results for Markdown, CSV and LaTeX files."""

from __future__ import annotations

import re
import unicodedata

from hellm_recbole.errors import strip_controls

_FORMULA = ("=", "+", "-", "@")  # a spreadsheet reads a cell that starts with one of these as a formula
_LATEX_ESCAPES = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u00b1": r"$\pm$",
}


def escape_markdown(text: str) -> str:
    r"""Escape a text for GitHub Markdown and drop control characters.

    >>> print(escape_markdown("SAS_Rec | <b>"))
    SAS\_Rec \| \<b\>
    """
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", strip_controls(text))


def escape_csv(cell: object) -> object:
    """Escape a cell of a CSV file so that a spreadsheet does not run a text as a formula.

    A text that looks like a formula gets an apostrophe in front, which spreadsheets read as "this is a text". Control
    characters are dropped. All other cells stay as they are.

    >>> [escape_csv(cell) for cell in ("=1+1", "@x", -0.5, None, "LightGCN")]
    ["'=1+1", "'@x", -0.5, None, 'LightGCN']
    """
    if not isinstance(cell, str):
        return cell
    text = strip_controls(cell)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def escape_latex(text: str) -> str:
    r"""Escape a text for LaTeX in ASCII.

    Letters lose their accents. A character that has no ASCII form becomes a question mark.

    >>> print(escape_latex("50% of caf\u00e9_x \u2192"))
    50\% of cafe\_x ?
    """
    escaped = []
    for char in text:
        if char in _LATEX_ESCAPES:
            escaped.append(_LATEX_ESCAPES[char])
        else:
            plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
            escaped.append("".join(_LATEX_ESCAPES.get(part, part) for part in plain) or "?")
    return "".join(escaped)
