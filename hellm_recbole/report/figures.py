"""Figures of records, searches and ablations: matplotlib figures at the width of a page of a paper.

Each function takes plain series and returns a figure; `write_figure` saves it as SVG and PNG. A row keeps its colour
and line style in all figures of a report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from hellm_recbole.system.files import atomic_write, ensure_folder

PAGE_INCHES = 7.0  # text width of an A4 or letter page
DPI = 200
LOG_FROM = 50.0  # an axis of positive values that spans such a factor is logarithmic

# Okabe and Ito's colours, which readers with colour-blindness can tell apart; the line style changes after each round.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "svg.hashsalt": "hellm-recbole",  # the same bytes for the same figure
    "svg.fonttype": "path",
    "text.parse_math": False,  # a $ in a name is a $
}


@dataclass(frozen=True)
class Series:
    """One line or set of points.

    Attributes:
        name: of the row, for the legend.
        place: of the row among all rows; decides colour and style.
        x: values.
        y: values, as many.
    """

    name: str
    place: int
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: above it.
        x_label: with unit.
        y_label: with unit.
        series: what is drawn.
        ticks: names of the places 0, 1, ... of the x axis, where it has no numbers.
        log_x: whether the x axis is logarithmic.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    ticks: Sequence[str] = ()
    log_x: bool = False


def spans_decades(values: Sequence[float]) -> bool:
    """Whether an axis of these values had better be logarithmic.

    >>> spans_decades([1e-5, 1e-1]), spans_decades([1, 30]), spans_decades([0, 100])
    (True, False, False)
    """
    return len(values) > 1 and min(values) > 0 and max(values) / min(values) >= LOG_FROM


def draw_lines(panels: Sequence[Panel], *, points: bool = False) -> Figure:
    """Panels side by side with one legend below.

    Args:
        panels: at least one.
        points: mark each value.
    """
    figure, axes = _panels(len(panels), 2.7)
    with matplotlib.rc_context(_STYLE):
        for panel, ax in zip(panels, axes, strict=True):
            for series in panel.series:
                colour, line, marker = _look(series.place)
                marked = marker if points or len(series.x) == 1 else None
                ax.plot(series.x, series.y, line, color=colour, marker=marked, markersize=4, label=series.name)
            _finish(ax, panel)
        _legend(figure, axes)
    return figure


def draw_scatter(panels: Sequence[Panel]) -> Figure:
    """Named points, with the line of those that no other point beats on both axes (less x, more y)."""
    figure, axes = _panels(len(panels), 3.0)
    with matplotlib.rc_context(_STYLE):
        for panel, ax in zip(panels, axes, strict=True):
            points = [(series.x[0], series.y[0]) for series in panel.series]
            front = find_pareto_front(points)
            ax.plot(*zip(*front, strict=True), "-", color="0.6", linewidth=0.8, zorder=1, label="_front")
            for series in panel.series:
                colour, _, marker = _look(series.place)
                ax.plot(series.x, series.y, linestyle="", marker=marker, color=colour, markersize=5, label=series.name)
            _finish(ax, panel)
        _legend(figure, axes)
    return figure


def find_pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats with less x and more y, by rising x.

    >>> find_pareto_front([(1, 1), (2, 3), (3, 2)])
    [(1, 1), (2, 3)]
    """
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def draw_bars(
    title: str, label: str, names: Sequence[str], values: Sequence[float], spans: Sequence[tuple[float, float]]
) -> Figure:
    """Horizontal bars with intervals, first name on top.

    Args:
        title: above.
        label: of the x axis, with unit.
        names: of the bars.
        values: lengths.
        spans: (low, high) of each.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(PAGE_INCHES * 0.72, 0.7 + 0.28 * len(names)), layout="constrained")
        ax = figure.subplots()
        places = np.arange(len(names))[::-1]
        errors = np.array([(value - low, high - value) for value, (low, high) in zip(values, spans, strict=True)]).T
        colours = [_COLOURS[2] if value > 0 else _COLOURS[1] for value in values]
        ax.barh(
            places,
            values,
            xerr=np.maximum(errors, 0),
            color=colours,
            height=0.6,
            error_kw={"linewidth": 0.8, "capsize": 2},
        )
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(places, names)
        ax.set_xlabel(label)
        ax.set_title(title)
        ax.grid(visible=False, axis="y")
    return figure


@dataclass(frozen=True)
class Grid:
    """A heat map.

    Attributes:
        title: above it, with what the colours are.
        x_label: of the columns.
        y_label: of the rows.
        x: values of the columns.
        y: values of the rows, the first at the bottom.
        values: [rows, columns]; NaN where there is none.
    """

    title: str
    x_label: str
    y_label: str
    x: Sequence[Any]
    y: Sequence[Any]
    values: np.ndarray


def draw_heat_maps(grids: Sequence[Grid]) -> Figure:
    """Heat maps side by side, each value written into its field."""
    figure, axes = _panels(len(grids), 3.0)
    with matplotlib.rc_context(_STYLE):
        for grid, ax in zip(grids, axes, strict=True):
            image = ax.imshow(grid.values, origin="lower", cmap="viridis", aspect="auto")
            ax.set_xticks(range(len(grid.x)), [f"{value:g}" for value in grid.x])
            ax.set_yticks(range(len(grid.y)), [f"{value:g}" for value in grid.y])
            ax.set_xlabel(grid.x_label)
            ax.set_ylabel(grid.y_label)
            ax.set_title(grid.title)
            ax.grid(visible=False)
            middle = (np.nanmin(grid.values) + np.nanmax(grid.values)) / 2
            for row, column in np.argwhere(np.isfinite(grid.values)):
                value = grid.values[row, column]
                ink = "black" if value > middle else "white"
                ax.text(column, row, f"{value:.4f}".lstrip("0"), ha="center", va="center", color=ink, fontsize=6)
            figure.colorbar(image, ax=ax, shrink=0.9)
    return figure


def write_figure(folder: Path, name: str, figure: Figure) -> Path:
    """Write `name.svg` and `name.png`; the path of the first.

    Raises:
        OutputError: the folder cannot be written to.
    """
    ensure_folder(folder)
    with matplotlib.rc_context(_STYLE):
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            with atomic_write(folder / f"{name}.{ending}") as temporary:
                figure.savefig(temporary, format=ending, dpi=DPI, metadata=metadata)
    return folder / f"{name}.svg"


def _panels(n: int, height: float) -> tuple[Figure, list[Axes]]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(PAGE_INCHES, height), layout="constrained")
        return figure, list(figure.subplots(1, n, squeeze=False)[0])


def _look(place: int) -> tuple[str, str, str]:
    """Colour, line style and marker of a row."""
    return (
        _COLOURS[place % len(_COLOURS)],
        _LINES[place // len(_COLOURS) % len(_LINES)],
        _MARKERS[(place + place // len(_COLOURS)) % len(_MARKERS)],
    )


def _plain(value: float, _: object) -> str:
    return f"{value:g}"


def _finish(ax: Axes, panel: Panel) -> None:
    ax.set_title(panel.title)
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel(panel.y_label)
    if panel.log_x:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(_plain))
        ax.xaxis.set_minor_formatter(NullFormatter())
    if panel.ticks:
        ax.set_xticks(range(len(panel.ticks)), panel.ticks)
        if max(map(len, panel.ticks)) > 12:
            ax.tick_params(axis="x", rotation=15)


def set_exact_ticks(figure: Figure, values: Sequence[float]) -> None:
    """Put the x ticks of all panels where the values are."""
    for ax in figure.axes:
        ax.xaxis.set_major_locator(FixedLocator(list(values)) if len(values) <= 12 else MaxNLocator(10))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(_plain))


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    found: Mapping[str, Any] = {
        label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if len(found) > 1:
        figure.legend(
            list(found.values()), list(found), loc="outside lower center", ncols=min(len(found), 6), frameon=False
        )
