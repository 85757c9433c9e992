"""Figures of runs, searches and ablations: matplotlib figures as wide as the text of a paper's page.

Each `draw_` function takes plain series of numbers and returns a figure. `write_figure` saves it as SVG, PDF and PNG. A
model has the same colour, dashes and marker in all figures of a report.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from hellm_recbole.report.figure_styles import GAIN, LOSS, STYLE, SeriesStyle, choose_style
from hellm_recbole.system.files import atomic_write, ensure_folder

PAGE_INCHES = 7.0  # text width of an A4 or letter page
DPI = 200
LOG_FROM = 50.0  # an axis is logarithmic if its values are positive and largest / smallest is at least this
CURVE_LOG_FROM = 10.0  # the same for an axis of epochs or of time, where a curve bends at the beginning
FRONT = "front"  # id of the line through the Pareto front, in the panels of the page
_PANEL_INCHES = (5.2, 3.4)  # a panel of the page, which stands alone
_PANEL_STYLE: Any = {key: 9 for key in STYLE if key.endswith("size")} | {"axes.titlesize": 10, "lines.linewidth": 1.5}
_MOST_MARKERS = 6  # of a line; more would hide it
_LONGEST_NAME = 48  # characters of a name in a legend; the rest goes to a second line
_LEGEND_FRACTION = 0.98  # share of the figure's width that a legend may have
_ONE_LINE_INCHES = 0.25  # height of a legend of one line, for which there is room
_METADATA: dict[str, dict[str, Any]] = {  # no dates and versions: the same figure gives the same bytes
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclass(frozen=True)
class Series:
    """One line or one set of points of a figure.

    Attributes:
        name: name in the legend, usually that of a row of the table; "" if the title of the panel names it.
        index: number from 0 that selects dashes and marker; a row of the table has the same one everywhere.
        x: x values.
        y: y values, as many as `x` has.
        family: family of the row, which selects the hue; None for a series that is no row of the table.
        shade: number of the row in its family from 0, which selects the shade.
    """

    name: str
    index: int
    x: Sequence[float]
    y: Sequence[float]
    family: str | None = None
    shade: int = 0

    @property
    def style(self) -> SeriesStyle:
        """Colour, dashes and marker."""
        return choose_style(self.index, self.family, self.shade)


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


def spans_decades(values: Sequence[float], ratio: float = LOG_FROM) -> bool:
    """Return whether these values need a logarithmic axis.

    Args:
        values: values on the axis.
        ratio: largest / smallest from which they need one.

    >>> spans_decades([1e-5, 1e-1]), spans_decades([1, 30]), spans_decades([0, 100])
    (True, False, False)
    """
    return len(values) > 1 and min(values) > 0 and max(values) / min(values) >= ratio


@dataclass(frozen=True)
class Chart:
    """Panels that are drawn alike: together with one legend for a file, or one by one without a legend for the page.

    Attributes:
        panels: at least one panel.
        kind: "lines"; "marked lines", with a marker at each value; or "scatter", one point for each series.
    """

    panels: Sequence[Panel]
    kind: Literal["lines", "marked lines", "scatter"] = "lines"

    def draw(self) -> Figure:
        """Draw all panels next to each other, with one legend below."""
        if self.kind == "scatter":
            return draw_scatter(self.panels)
        return draw_lines(self.panels, points=self.kind == "marked lines")

    def draw_panels(self) -> list[Figure]:
        """Draw each panel as a figure without legend. Its series have the ids `series-N`, with N as in `list_names`."""
        ids = {name: f"series-{n}" for n, name in enumerate(self.list_names())}
        drawn = []
        for panel in self.panels:
            with matplotlib.rc_context({**STYLE, **_PANEL_STYLE}):
                figure = Figure(figsize=_PANEL_INCHES, layout="constrained")
                ax = figure.subplots()
                if self.kind == "scatter":
                    _draw_points(ax, panel, ids)
                else:
                    _draw_panel_lines(ax, panel, ids, points=self.kind == "marked lines")
            drawn.append(figure)
        return drawn

    def list_names(self) -> dict[str, Series]:
        """List the names in the legend, each with its first series."""
        names: dict[str, Series] = {}
        for panel in self.panels:
            for series in panel.series:
                if series.name:
                    names.setdefault(series.name, series)
        return names


def draw_lines(panels: Sequence[Panel], *, points: bool = False) -> Figure:
    """Draw panels with lines next to each other, with one legend below.

    Args:
        panels: at least one panel.
        points: whether each value has a marker; otherwise a line has a few, which distinguish it from others.
    """
    figure, axes = _create_axes(len(panels), 2.7)
    with matplotlib.rc_context(STYLE):
        for panel, ax in zip(panels, axes, strict=True):
            _draw_panel_lines(ax, panel, {}, points=points)
        _add_legend(figure, axes)
    return figure


def _draw_panel_lines(ax: Axes, panel: Panel, ids: Mapping[str, str], *, points: bool) -> None:
    """Draw the lines of a panel; `ids` has the ids of named series in an SVG file."""
    for series in panel.series:
        style = series.style
        step = 1 if points else max(-(-len(series.x) // _MOST_MARKERS), 1)
        ax.plot(
            series.x,
            series.y,
            linestyle=style.line,
            color=style.colour,
            marker=style.marker,
            markersize=4,
            markevery=(series.index % step, step),  # different starts, so that markers of close lines stay apart
            label=series.name,
            gid=ids.get(series.name),
        )
    _label_axes(ax, panel)


def draw_scatter(panels: Sequence[Panel]) -> Figure:
    """Draw named points, and a line through the Pareto front: smaller x and larger y are better.

    Args:
        panels: at least one panel; of each series the first value is the point of the front.
    """
    figure, axes = _create_axes(len(panels), 3.0)
    with matplotlib.rc_context(STYLE):
        for panel, ax in zip(panels, axes, strict=True):
            _draw_points(ax, panel, {})
        _add_legend(figure, axes)
    return figure


def _draw_points(ax: Axes, panel: Panel, ids: Mapping[str, str]) -> None:
    """Draw the points of a panel and their Pareto front; `ids` has the ids of named series in an SVG file."""
    front = find_pareto_front([(series.x[0], series.y[0]) for series in panel.series])
    ax.plot(*zip(*front, strict=True), "-", color="0.6", linewidth=0.8, zorder=1, label="_front", gid=FRONT)
    for series in panel.series:
        style = series.style
        ax.plot(
            series.x,
            series.y,
            linestyle="",
            marker=style.marker,
            color=style.colour,
            markersize=6,
            label=series.name,
            gid=ids.get(series.name),
        )
    _label_axes(ax, panel)


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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PAGE_INCHES * 0.72, 0.7 + 0.28 * len(names)), layout="constrained")
        ax = figure.subplots()
        positions = np.arange(len(names))[::-1]
        errors = np.array([(value - low, high - value) for value, (low, high) in zip(values, spans, strict=True)]).T
        colours = [GAIN if value > 0 else LOSS for value in values]
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
    with matplotlib.rc_context(STYLE):
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
                text_colour = "#111111" if value > middle else "#ffffff"  # in dark mode, too
                ax.text(
                    column, row, f"{value:.4f}".lstrip("0"), ha="center", va="center", color=text_colour, fontsize=6
                )
            figure.colorbar(image, ax=ax, shrink=0.9)
    return figure


def write_figure(folder: Path, name: str, figure: Figure) -> Path:
    """Write `<name>.svg`, `<name>.pdf` and `<name>.png` into a folder and return the path of the SVG file.

    Raises:
        OutputError: the folder cannot be written to.
    """
    ensure_folder(folder)
    with matplotlib.rc_context(STYLE):
        for ending, metadata in _METADATA.items():
            with atomic_write(folder / f"{name}.{ending}") as temporary:
                figure.savefig(temporary, format=ending, dpi=DPI, metadata=metadata)
    return folder / f"{name}.svg"


def _create_axes(n: int, height: float) -> tuple[Figure, list[Axes]]:
    """Create a figure of the page's width with `n` pairs of axes next to each other; `height` is in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PAGE_INCHES, height), layout="constrained")
        return figure, list(figure.subplots(1, n, squeeze=False)[0])


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
    """Add one legend for all axes below them, and make the figure higher by it; a single named series has one, too.

    The legend gets as many columns as fit into the width.
    """
    entries: Mapping[str, Any] = {
        label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if not entries:
        return
    width, height = figure.get_size_inches()
    names = ["\n".join(textwrap.wrap(name, _LONGEST_NAME)) for name in entries]
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    for n_columns in range(min(len(names), 6), 0, -1):
        legend = figure.legend(
            list(entries.values()), names, loc="outside lower center", ncols=n_columns, frameon=False, handlelength=3.5
        )
        box = legend.get_window_extent(renderer)
        if box.width <= _LEGEND_FRACTION * width * figure.dpi or n_columns == 1:
            figure.set_size_inches(width, height + max(box.height / figure.dpi - _ONE_LINE_INCHES, 0.0))
            return
        legend.remove()
