from __future__ import annotations

from matplotlib.figure import Figure

from hellm_recbole.report import page, page_figures
from hellm_recbole.report.named_figure import NamedFigure


def test_all_figures_of_the_page_are_of_this_type() -> None:
    figure = NamedFigure("costs", "Costs", "Up is better.", Figure())
    assert (figure.name, figure.title, figure.caption) == ("costs", "Costs", "Up is better.")
    assert page.NamedFigure is page_figures.NamedFigure is NamedFigure
