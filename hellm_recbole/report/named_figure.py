"""A figure of the page with its texts."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from hellm_recbole.report.figures import Chart


@dataclass(frozen=True)
class NamedFigure:
    """A figure with its texts.

    Attributes:
        name: file name without ending.
        title: text above the figure.
        caption: text below it.
        content: the panels of the figure; or the figure itself, if its parts cannot be drawn one by one.
    """

    name: str
    title: str
    caption: str
    content: Chart | Figure

    @property
    def figure(self) -> Figure:
        """The whole figure, with its legend."""
        return self.content if isinstance(self.content, Figure) else self.content.draw()
