"""The docstring of a model's module as the sections of its page: what it is, equations, deviations, and so on.

Docstrings keep one form: a first sentence with the name, a paragraph with the paper, the equations as a list, and then
paragraphs that begin with "Deviations", "Settings" or a setting such as `missing_features: masked`.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from hellm_docs.markdown import escape_prose

EQUATIONS = "Equations"
DEVIATIONS = "Deviations from the paper and from released code"
# Beginning of a paragraph -> heading above it. A paragraph of the first two kinds loses its first word, which the
# heading says.
_HEADINGS = {
    r"(?:\*\*)?Deviations[:.]?(?:\*\*)?\s+": DEVIATIONS,
    r"Settings:\s+": "Where the settings come from",
    r"(?=`missing_features: masked`)": "Items without features",
}
_ORDER_NOTE = re.compile(r"\s*(?:In the paper's order|Equations in order|In order|in order):$")


@dataclass(frozen=True)
class ModelText:
    """What a module's docstring says.

    Attributes:
        summary: first sentence, without the name of the model.
        body: Markdown with headings of the second level.
    """

    summary: str
    body: str


def read_model_text(docstring: str) -> ModelText:
    r"""Turn the docstring of a model's module into the text of its page.

    >>> text = read_model_text("X: a model.\n\nA, 2020. Equations in order:\n\n- `a = b`.\n\nDeviations: none.")
    >>> text.summary
    'A model.'
    >>> print(text.body)
    A, 2020.
    <BLANKLINE>
    ## Equations
    <BLANKLINE>
    - `a = b`.
    <BLANKLINE>
    ## Deviations from the paper and from released code
    <BLANKLINE>
    None.
    """
    first, *paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(docstring))
    written = list[str]()
    headings = set[str]()
    for paragraph in paragraphs:
        heading, text = _find_heading(paragraph)
        if paragraph.startswith("- ") and not headings:
            heading = EQUATIONS
            written[-1:] = [_ORDER_NOTE.sub("", text) for text in written[-1:]]
        if heading is not None and heading not in headings:
            headings.add(heading)
            written.append(f"## {heading}")
        written.append(text)
    summary = first.partition(": ")[2] or first
    return ModelText(_capitalise(" ".join(summary.split())), escape_prose("\n\n".join(filter(None, written))))


def _find_heading(paragraph: str) -> tuple[str | None, str]:
    """Return the heading that stands above a paragraph, if one does, and the paragraph below it."""
    for start, heading in _HEADINGS.items():
        if found := re.match(start, paragraph):
            return heading, _capitalise(paragraph[found.end() :])
    return None, paragraph


def _capitalise(text: str) -> str:
    """Return a text whose first letter is a capital."""
    return text[:1].upper() + text[1:]
