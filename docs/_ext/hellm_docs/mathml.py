"""Formulas of pages as MathML, which browsers draw by themselves: no script has to be loaded from another host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml

if TYPE_CHECKING:
    from sphinx.application import Sphinx

RENDERER = "mathml"  # value of html_math_renderer in conf.py
# Delimiters that docutils does not know, as ones that it does.
_DELIMITERS = {r"\lVert": r"\|", r"\rVert": r"\|", r"\lvert": "|", r"\rvert": "|"}


def register(app: Sphinx) -> None:
    """Register the renderer."""
    app.add_html_math_renderer(RENDERER, (_visit_inline, None), (_visit_block, None))


def convert_formula(text: str, *, as_block: bool) -> str:
    r"""Convert a formula of LaTeX to MathML.

    Raises:
        ValueError: a command of LaTeX is not known.

    >>> "<mi>x</mi>" in convert_formula(r"\lVert x \rVert", as_block=False)
    True
    """
    for known, replacement in _DELIMITERS.items():
        text = text.replace(known, replacement)
    try:
        return str(latex2mathml.tex2mathml(text, as_block=as_block))
    except MathError as error:
        raise ValueError(f"the formula {text} cannot be converted to MathML: {error}") from error


def _visit_inline(translator: Any, node: nodes.math) -> None:
    """Write a formula inside a sentence."""
    translator.body.append(convert_formula(node.astext(), as_block=False))
    raise nodes.SkipNode


def _visit_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    translator.body.append(f'<div class="math">{convert_formula(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode
