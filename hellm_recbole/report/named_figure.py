"""A figure of the page with its texts."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class NamedFigure:
    """A figure with its texts.

    Attributes:
        name: file name without ending.
        title: text above the figure.
        caption: text below it.
        figure: the figure.
    """

    name: str
    title: str
    caption: str
    figure: Figure
