"""How a series of a figure looks: colour, dashes and marker, on a light and on a dark ground.

The rows of one family share a hue, and each has a shade of its own. The colours alone may look alike: dashes
and marker together are different for each of the first 44 rows, also in black and white.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.markers import MarkerStyle
from matplotlib.path import Path

from hellm_recbole.experiments.external_lists import EXTERNAL
from hellm_recbole.report.protocols import FAMILY_TITLES

# Hues as in the palette of Okabe and Ito, which colour-blind readers can tell apart: blue, green, orange, purple, then
# gold and grey. Each has five shades that differ in lightness (OKLCH), with a contrast of at least 3 on their ground.
_LIGHT = (
    ("#014f8a", "#0271c2", "#2191f0", "#0060a6", "#0683df"),
    ("#025c3f", "#03835b", "#08a775", "#066f4d", "#09976a"),
    ("#7b3702", "#ad5002", "#dc6702", "#934302", "#c85d02"),
    ("#801571", "#a73f95", "#ca60b6", "#932b83", "#bb52a8"),
    ("#5c4c00", "#836d03", "#a78c0c", "#6f5c01", "#977e05"),
    ("#4e4d4d", "#706e6e", "#8f8d8d", "#5f5d5d", "#818080"),
)
_DARK = (
    ("#afd5fe", "#61b0fe", "#1289e7", "#89c3fe", "#319cfc"),
    ("#60efb5", "#2bc88f", "#009f6e", "#48dba2", "#06b37e"),
    ("#ffc2a0", "#fd8537", "#d16100", "#ffa571", "#e8721c"),
    ("#feb6ee", "#ea7dd5", "#c158ae", "#fe91e8", "#d66ac1"),
    ("#ecd065", "#c5a93b", "#9e8406", "#d8bd51", "#b29722"),
    ("#d2d0d1", "#acaaab", "#878686", "#bfbdbd", "#999898"),
)
# Rows of other systems are grey, whatever family their model belongs to.
_HUES: dict[str, int] = {family: hue for hue, family in enumerate(name for name in FAMILY_TITLES if name != EXTERNAL)}
_HUES[EXTERNAL] = len(_LIGHT) - 1
GAIN, LOSS = _LIGHT[1][1], _LIGHT[2][1]  # colours of bars: green and orange
# Lengths of dashes and gaps, in units of the line's width. 4 patterns and 11 markers have no common divisor, so that 44
# rows in a sequence have 44 different pairs.
_DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 1.8), (1.2, 1.4), (6.0, 1.6, 1.2, 1.6))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">", "h")
STYLE: dict[Any, Any] = {
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
    "pdf.fonttype": 42,  # fonts that publishers accept
    "text.parse_math": False,  # a $ in a name is printed as it is
}


@dataclass(frozen=True)
class SeriesStyle:
    """The looks of a series.

    Attributes:
        colour: colour on a light ground, "#rrggbb".
        dashes: lengths of dashes and gaps, in units of the line's width; empty for a solid line.
        marker: marker of matplotlib.
    """

    colour: str
    dashes: tuple[float, ...]
    marker: str

    @property
    def line(self) -> Any:
        """Line style of matplotlib."""
        return (0, self.dashes) if self.dashes else "-"


def choose_style(index: int, family: str | None = None, shade: int = 0) -> SeriesStyle:
    """Choose the looks of a series.

    Args:
        index: number from 0 that selects dashes and marker, and the colour if there is no family.
        family: family of the row, which selects the hue; None for a series that is no row.
        shade: number of the row in its family from 0, which selects the shade.
    """
    if family is None:
        hue, shade = index, index // len(_LIGHT)
    else:
        hue = _HUES.get(family, len(_HUES) - 1)  # another family gets the hue that is left
    shades = _LIGHT[hue % len(_LIGHT)]
    return SeriesStyle(shades[shade % len(shades)], _DASHES[index % len(_DASHES)], _MARKERS[index % len(_MARKERS)])


def list_dark_colours() -> dict[str, str]:
    """List the colours on a dark ground: colour on a light ground -> colour on a dark one."""
    pairs = zip((c for shades in _LIGHT for c in shades), (c for shades in _DARK for c in shades), strict=True)
    return dict(pairs)


def trace_marker(marker: str, size: float) -> str:
    """Return the outline of a marker as the `d` of an SVG path around (0, 0).

    Args:
        marker: marker of matplotlib.
        size: width of the marker, as `markersize`.
    """
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    letters = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
    parts: list[str] = []
    for points, code in path.iter_segments():
        parts.append("Z" if code == Path.CLOSEPOLY else letters[code] + _write_points(points.tolist(), size))
    return "".join(parts)


def _write_points(points: Sequence[float], size: float) -> str:
    """Write coordinates x, y, x, y, ... of a marker for SVG, where y points down."""
    return " ".join(f"{value * size * (-1 if place % 2 else 1):.2f}" for place, value in enumerate(points))
