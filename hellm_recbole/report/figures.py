"""Figures of runs, searches and ablations: matplotlib figures as wide as the text of a paper's page.

Each `draw_` function takes plain series of numbers and returns a figure. `write_figure` saves it as SVG and PNG. A
model has the same colour and line style in all figures of a report.
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
LOG_FROM = 50.0  # an axis is logarithmic if its values are positive and largest / smallest is at least this

# Okabe and Ito's palette: colour-blind readers can tell these colours apart. Once all are used, the line style changes.
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
    "svg.hashsalt": "hellm-recbole",  # fixed ids: the same figure gives the same bytes
    "svg.fonttype": "path",
    "text.parse_math": False,  # a $ in a name is printed as it is
}


@dataclass(frozen=True)
class Series:
    """One line or one set of points of a figure.

    Attributes:
        name: name in the legend, usually that of a row of the table; "" if the title of the panel names it.
        index: number from 0 that selects colour, line style and marker; a row of the table has the same one everywhere.
        x: x values.
        y: y values, as many as `x` has.
    """

    name: str
    index: int
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One pair of axes with its series.

    Attributes:
        title: text above the axes.
        x_label: label of the x axis, with the unit.
        y_label: label of the y axis, with the unit.
        series: lines or points to draw.
        ticks: names of the x values 0, 1, ... on an axis of categories; empty for an axis of numbers.
        log_x: whether the x axis is logarithmic.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    ticks: Sequence[str] = ()
    log_x: bool = False


def spans_decades(values: Sequence[float]) -> bool:
    """Return whether these values need a logarithmic axis.

    >>> spans_decades([1e-5, 1e-1]), spans_decades([1, 30]), spans_decades([0, 100])
    (True, False, False)
    """
    return len(values) > 1 and min(values) > 0 and max(values) / min(values) >= LOG_FROM


def draw_lines(panels: Sequence[Panel], *, points: bool = False) -> Figure:
    """Draw panels with lines next to each other, with one legend below.

    Args:
        panels: at least one panel.
        points: whether each value has a marker; a series of one value always has.
    """
    figure, axes = _create_axes(len(panels), 2.7)
    with matplotlib.rc_context(_STYLE):
        for panel, ax in zip(panels, axes, strict=True):
            for series in panel.series:
                colour, line, marker = _choose_style(series.index)
                shown_marker = marker if points or len(series.x) == 1 else None
                ax.plot(series.x, series.y, line, color=colour, marker=shown_marker, markersize=4, label=series.name)
            _label_axes(ax, panel)
        _add_legend(figure, axes)
    return figure


def draw_scatter(panels: Sequence[Panel]) -> Figure:
    """Draw named points, and a line through the Pareto front: smaller x and larger y are better.

    Args:
        panels: at least one panel; of each series the first value is the point of the front.
    """
    figure, axes = _create_axes(len(panels), 3.0)
    with matplotlib.rc_context(_STYLE):
        for panel, ax in zip(panels, axes, strict=True):
            points = [(series.x[0], series.y[0]) for series in panel.series]
            front = find_pareto_front(points)
            ax.plot(*zip(*front, strict=True), "-", color="0.6", linewidth=0.8, zorder=1, label="_front")
            for series in panel.series:
                colour, _, marker = _choose_style(series.index)
                ax.plot(series.x, series.y, linestyle="", marker=marker, color=colour, markersize=5, label=series.name)
            _label_axes(ax, panel)
        _add_legend(figure, axes)
    return figure


def find_pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other point beats with smaller x and larger y, sorted by x.

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
    """Draw horizontal bars with intervals, the first bar on top.

    Args:
        title: text above the axes.
        label: label of the x axis, with the unit.
        names: names of the bars.
        values: lengths of the bars.
        spans: (low, high) ends of each bar's interval.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(PAGE_INCHES * 0.72, 0.7 + 0.28 * len(names)), layout="constrained")
        ax = figure.subplots()
        positions = np.arange(len(names))[::-1]
        errors = np.array([(value - low, high - value) for value, (low, high) in zip(values, spans, strict=True)]).T
        colours = [_COLOURS[2] if value > 0 else _COLOURS[1] for value in values]
        ax.barh(
            positions,
            values,
            xerr=np.maximum(errors, 0),
            color=colours,
            height=0.6,
            error_kw={"linewidth": 0.8, "capsize": 2},
        )
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(positions, names)
        ax.set_xlabel(label)
        ax.set_title(title)
        ax.grid(visible=False, axis="y")
    return figure


@dataclass(frozen=True)
class Grid:
    """The data of a heat map.

    Attributes:
        title: text above the map; it names the quantity that the colours show.
        x_label: name of the setting on the x axis.
        y_label: name of the setting on the y axis.
        x: setting values of the columns.
        y: setting values of the rows, the first at the bottom.
        values: [len(y), len(x)] quantity in each field; NaN where there is none.
    """

    title: str
    x_label: str
    y_label: str
    x: Sequence[Any]
    y: Sequence[Any]
    values: np.ndarray


def draw_heat_maps(grids: Sequence[Grid]) -> Figure:
    """Draw heat maps next to each other, with each value written into its field."""
    figure, axes = _create_axes(len(grids), 3.0)
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
                text_colour = "black" if value > middle else "white"
                ax.text(
                    column, row, f"{value:.4f}".lstrip("0"), ha="center", va="center", color=text_colour, fontsize=6
                )
            figure.colorbar(image, ax=ax, shrink=0.9)
    return figure


def write_figure(folder: Path, name: str, figure: Figure) -> Path:
    """Write `<name>.svg` and `<name>.png` into a folder and return the path of the SVG file.

    Raises:
        OutputError: the folder cannot be written to.
    """
    ensure_folder(folder)
    with matplotlib.rc_context(_STYLE):
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            with atomic_write(folder / f"{name}.{ending}") as temporary:
                figure.savefig(temporary, format=ending, dpi=DPI, metadata=metadata)
    return folder / f"{name}.svg"


def _create_axes(n: int, height: float) -> tuple[Figure, list[Axes]]:
    """Create a figure of the page's width with `n` pairs of axes next to each other; `height` is in inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(PAGE_INCHES, height), layout="constrained")
        return figure, list(figure.subplots(1, n, squeeze=False)[0])


def _choose_style(index: int) -> tuple[str, str, str]:
    """Return colour, line style and marker of the series with this index."""
    return (
        _COLOURS[index % len(_COLOURS)],
        _LINES[index // len(_COLOURS) % len(_LINES)],
        _MARKERS[(index + index // len(_COLOURS)) % len(_MARKERS)],
    )


def _format_tick(value: float, _: object) -> str:
    """Write a tick as a plain number; the second argument is the position that matplotlib passes."""
    return f"{value:g}"


def _label_axes(ax: Axes, panel: Panel) -> None:
    """Set title, labels, scale and ticks of a pair of axes."""
    ax.set_title(panel.title)
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel(panel.y_label)
    if panel.log_x:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(_format_tick))
        ax.xaxis.set_minor_formatter(NullFormatter())
    if panel.ticks:
        ax.set_xticks(range(len(panel.ticks)), panel.ticks)
        ax.set_xlim(-0.5, len(panel.ticks) - 0.5)  # room for half a label on both sides
        if max(map(len, panel.ticks)) > 12:
            for label in ax.get_xticklabels():
                label.set(rotation=15, horizontalalignment="right", rotation_mode="anchor")


def set_exact_ticks(figure: Figure, values: Sequence[float]) -> None:
    """Put the x ticks of all panels exactly at these values; with more than 12 values, at 10 or fewer round numbers."""
    for ax in figure.axes:
        ax.xaxis.set_major_locator(FixedLocator(list(values)) if len(values) <= 12 else MaxNLocator(10))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(_format_tick))


def _add_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Add one legend for all axes below them; a single named series has one, too."""
    entries: Mapping[str, Any] = {
        label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if entries:
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=min(len(entries), 6), frameon=False
        )
