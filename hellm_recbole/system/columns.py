"""Fit text into the columns of a console, and never cut a number."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len

_SHORTEST_NAME = 8

Forms = tuple[str, ...]  # one part of a line, from its longest form to its shortest one


def fit_parts(parts: Sequence[Forms], width: int) -> str:
    """Join parts with commas in at most `width` columns, where this is possible.

    Parts are shortened from the last to the first, each by one form, then again by one more form. An empty form leaves
    a part out. The last resort is to omit the commas.

    >>> parts = [("epoch 3 of at most 9", "epoch 3/9"), ("loss 0.25", "")]
    >>> [fit_parts(parts, width) for width in (31, 30, 10)]
    ['epoch 3 of at most 9, loss 0.25', 'epoch 3 of at most 9', 'epoch 3/9']

    Args:
        parts: parts in the order of the line, the most important one first.
        width: largest number of columns.
    """
    chosen = [0] * len(parts)
    for level in range(max((len(forms) for forms in parts), default=0)):
        for index in reversed(range(len(parts))):
            chosen[index] = min(level, len(parts[index]) - 1)
            line = _join(parts, chosen, ", ")
            if cell_len(line) <= width:
                return line
    return _join(parts, chosen, " ")


def _join(parts: Sequence[Forms], chosen: Sequence[int], separator: str) -> str:
    """Join the chosen form of each part; empty forms are left out."""
    return separator.join(form for forms, index in zip(parts, chosen, strict=True) if (form := forms[index]))


def shorten_name(name: str, width: int) -> str:
    """Shorten the name of a run, "MODEL on DATASET", to `width` columns, where this is possible.

    The end is cut, if necessary, but never inside a number and never to nothing.

    >>> [shorten_name("HeLLMPre on amazon-2023-video", width) for width in (27, 20)]
    ['HeLLMPre/amazon-2023-video', 'HeLLMPre/amazon-...']
    """
    if cell_len(name) <= width:
        return name
    name = name.replace(" on ", "/")
    if cell_len(name) <= width:
        return name
    kept = name
    while kept and cell_len(kept) > max(width, _SHORTEST_NAME) - 3:
        kept = kept[:-1]
    if kept == name:
        return name
    if name[len(kept)].isdecimal():
        kept = re.sub(r"[\d.]+$", "", kept)
    return f"{kept}..."


def format_duration(seconds: float) -> str:
    """Format a time in the units in which a person would say it.

    >>> [format_duration(seconds) for seconds in (12.4, 200, 11_520, 200_000)]
    ['12 s', '3 min', '3 h 12 min', '2 d 8 h']
    """
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{max(seconds, 0):.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
