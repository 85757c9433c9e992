"""Turn a figure into SVG that stands inside the page, where style sheet and script reach its parts.

The page's colours replace those of the figure: black becomes the colour of the text, and each colour of a series a
variable of the style sheet, which has another value in dark mode. Texts stay texts.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from hellm_recbole.report.figure_styles import STYLE, SeriesStyle, list_dark_colours, trace_marker
from hellm_recbole.report.figures import FRONT

_LINK = re.compile(r"url\(#([^)]+)\)")
_LONG_NUMBER = re.compile(r"(\d\.\d\d)\d+")
_FONT = re.compile(r"font-family: [^;]*;? ?")  # the page has its own
_MOST_PIXELS_PER_POINT = 1.7  # an 8-point text is at most 14 pixels high
_NUMBERS = ("d", "x", "y")  # attributes with coordinates, of which two decimals are enough


def embed_figure(figure: Figure, name: str, title: str, keys: Mapping[str, str]) -> Markup:
    """Return a figure as an `svg` element.

    Args:
        figure: figure to embed.
        name: name that is unique in the page; the ids of the figure start with it.
        title: what the figure shows, for readers who do not see it.
        keys: id of a series in the figure -> its key in the page, the attribute `data-key`.
    """
    root = _parse(figure)
    linked = _find_links(root)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        found = element.attrib.pop("id", "")
        if found in linked:
            element.set("id", f"{name}-{found}")
        elif found in keys:
            element.set("class", "series")
            element.set("data-key", keys[found])
        elif found == FRONT:
            element.set("class", FRONT)
        _rewrite_attributes(element, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("style", f"max-width: {_MOST_PIXELS_PER_POINT * 72 * figure.get_size_inches()[0]:.0f}px")
    root.set("role", "img")
    root.set("aria-label", title)
    return Markup(ET.tostring(root, encoding="unicode"))  # ElementTree escapes the texts


def _parse(figure: Figure) -> ET.Element:
    """Save a figure as SVG without ground, and parse it; its metadata and its style sheet are left out."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({**STYLE, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ET.fromstring(buffer.getvalue())
    for child in list(root):
        if child.tag.endswith("}metadata") or (
            child.tag.endswith("}defs") and any(c.tag.endswith("style") for c in child)
        ):
            root.remove(child)
    return root


def _find_links(root: ET.Element) -> set[str]:
    """Find the ids that other elements refer to: outlines of markers, and clipping areas."""
    links: set[str] = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            links.update(_LINK.findall(value))
            if name.endswith("href") and value.startswith("#"):
                links.add(value[1:])
    return links


def _rewrite_attributes(element: ET.Element, name: str) -> None:
    """Point links to the ids of the page, replace colours, and shorten numbers.

    Args:
        element: element of the figure.
        name: beginning of the figure's ids.
    """
    for attribute, value in list(element.attrib.items()):
        del element.attrib[attribute]
        short = attribute.rpartition("}")[2]
        if short == "href" and value.startswith("#"):
            value = f"#{name}-{value[1:]}"
        elif short == "style":
            value = _replace_colours(value)
        elif short in _NUMBERS:
            value = _LONG_NUMBER.sub(r"\1", value)
        element.set(short, _LINK.sub(rf"url(#{name}-\1)", value))


def _replace_colours(style: str) -> str:
    """Replace black and the colours of series in the value of a `style`, and leave out the font.

    >>> _replace_colours("fill: none; stroke: #000000"), _replace_colours("stroke: #0271c2")
    ('fill: none; stroke: currentColor', 'stroke: var(--c-0271c2)')
    """
    for colour in list_dark_colours():
        style = style.replace(colour, f"var(--{name_colour(colour)})")
    return _FONT.sub("", style).replace("#000000", "currentColor")


def name_colour(colour: str) -> str:
    """Name the variable of the style sheet for a colour of a series, without the two dashes.

    >>> name_colour("#0271c2")
    'c-0271c2'
    """
    return f"c-{colour.removeprefix('#')}"


def draw_sample(style: SeriesStyle, *, with_line: bool) -> Markup:
    """Draw the sample of a series for a legend: its line, unless it is a point, with its marker.

    Args:
        style: looks of the series.
        with_line: whether the series is a line.
    """
    colour = f"var(--{name_colour(style.colour)})"
    dashes = " ".join(f"{1.5 * length:g}" for length in style.dashes)
    line = f'<path d="M1 7H39" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dashes}"/>'
    marker = f'<path transform="translate(20 7)" d="{trace_marker(style.marker, 8)}" fill="{colour}"/>'
    return Markup(f'<svg viewBox="0 0 40 14" aria-hidden="true">{line if with_line else ""}{marker}</svg>')
