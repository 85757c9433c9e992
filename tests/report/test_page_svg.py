"""Figures inside the page: their ids, keys, colours and texts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from hellm_recbole.report.figure_styles import choose_style, list_dark_colours
from hellm_recbole.report.figures import Chart, Panel, Series, draw_bars
from hellm_recbole.report.page_svg import draw_sample, embed_figure, name_colour

HOSTILE = "</svg><script>alert(1)</script> $x$"


@pytest.fixture(scope="module")
def embedded() -> str:
    series = [Series("a", 0, [1, 2, 3], [1, 2, 3], "llm", 0), Series("b", 1, [1, 2, 3], [3, 2, 1], "llm", 1)]
    (figure,) = Chart([Panel("title", HOSTILE, "y", series)]).draw_panels()
    return str(embed_figure(figure, "over-k-0", f"figure {HOSTILE}", {"series-0": "row-0", "series-1": "row-1"}))


def test_series_have_the_keys_of_the_page(embedded: str) -> None:
    groups = [element for element in ET.fromstring(embedded).iter() if element.get("class") == "series"]
    assert [group.get("data-key") for group in groups] == ["row-0", "row-1"]
    for index, group in enumerate(groups):
        colour = name_colour(choose_style(index, "llm", index).colour)
        assert f"stroke: var(--{colour})" in group.find("path").get("style")  # type: ignore[union-attr, operator]


def test_ids_belong_to_the_figure_and_links_have_a_target(embedded: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', embedded)
    assert ids
    assert len(ids) == len(set(ids))
    assert all(name.startswith("over-k-0-") for name in ids)
    links = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', embedded)
    assert {first or second for first, second in links} == set(ids)


def test_colours_are_those_of_the_page(embedded: str) -> None:
    assert "#000000" not in embedded
    assert "currentColor" in embedded
    assert "font-family" not in embedded
    assert not any(colour in embedded for colour in list_dark_colours())
    assert 'width="' not in embedded.split(">")[0]


def test_texts_stay_texts_and_are_escaped(embedded: str) -> None:
    root = ET.fromstring(embedded)  # complete: a text has not closed the element
    assert root.get("aria-label") == f"figure {HOSTILE}"
    assert HOSTILE in [element.text for element in root.iter("text")]
    assert "<script" not in embedded
    bars = embed_figure(draw_bars(HOSTILE, "x", ["<b>"], [1.0], [(0.0, 2.0)]), "bars", "t", {})
    assert {"<b>", HOSTILE} <= {element.text for element in ET.fromstring(bars).iter("text")}


def test_the_same_figure_gives_the_same_text() -> None:
    chart = Chart([Panel("t", "x", "y", [Series("a", 0, [1.0], [0.2])])], "scatter")
    first, again = (embed_figure(chart.draw_panels()[0], "cost-0", "t", {}) for _ in range(2))
    assert first == again
    assert 'class="front"' in first


def test_a_sample_has_the_looks_of_its_series() -> None:
    dashed = draw_sample(choose_style(1, "llm", 0), with_line=True)
    assert 'stroke-dasharray="7.5 2.7"' in dashed
    assert dashed.count("<path") == 2
    assert draw_sample(choose_style(1, "llm", 0), with_line=False).count("<path") == 1
    ET.fromstring(dashed)
