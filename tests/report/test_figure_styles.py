"""The looks of series: told apart without colour, by colour-blind readers, and on a light and a dark ground."""

from __future__ import annotations

import colorsys
import re
from itertools import combinations
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.colors import to_rgb

from hellm_recbole.experiments.external_lists import EXTERNAL
from hellm_recbole.models.base import Family
from hellm_recbole.report.figure_styles import choose_style, list_dark_colours, trace_marker

GROUNDS = {"light": "#ffffff", "dark": "#15161a"}  # as in the style sheet of the page
# How much light of the three primaries reaches each kind of cone without one kind, by Machado and others (2009).
BLINDNESS = {
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
FAMILIES: tuple[str, ...] = get_args(Family)
COLOURED = tuple(family for family in FAMILIES if family != EXTERNAL)  # rows of other systems are grey


def to_linear(colour: str) -> npt.NDArray[np.float64]:
    """Return the light of a colour's three primaries."""
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_oklab(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a colour in OKLab, where distances are about as large as they look."""
    cones = [[0.4122215, 0.5363325, 0.051446], [0.2119035, 0.6806995, 0.107397], [0.0883025, 0.2817188, 0.6299787]]
    to_lab = [[0.2104543, 0.7936178, -0.004072], [1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]]
    return np.array(to_lab) @ np.cbrt(np.array(cones) @ linear.clip(0, 1))


def measure_contrast(a: str, b: str) -> float:
    """Return the contrast of WCAG, from 1 to 21."""
    low, high = sorted(float(to_linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (a, b))
    return (high + 0.05) / (low + 0.05)


def test_44_rows_are_different_in_black_and_white() -> None:
    styles = [choose_style(index, "llm", 0) for index in range(44)]
    assert len({(style.dashes, style.marker) for style in styles}) == 44


def test_a_family_has_one_hue_and_five_shades() -> None:
    hues = {}
    for family in COLOURED:
        shades = [choose_style(7, family, shade).colour for shade in range(5)]
        assert len(set(shades)) == 5
        angles = [360 * colorsys.rgb_to_hls(*to_rgb(colour))[0] for colour in shades]
        assert max(angles) - min(angles) < 15
        hues[family] = np.mean(angles)
    assert all(abs(a - b) > 40 for a, b in combinations(hues.values(), 2))
    assert choose_style(0, "another family").colour not in {choose_style(0, family).colour for family in FAMILIES}
    for shade in range(5):
        red, green, blue = to_rgb(choose_style(0, EXTERNAL, shade).colour)
        assert max(red, green, blue) - min(red, green, blue) < 0.02


@pytest.mark.parametrize("eyes", BLINDNESS)
def test_colour_blind_readers_can_tell_the_families_apart(eyes: str) -> None:
    """0.02 in OKLab is about the smallest difference that is seen between fields side by side."""
    for shade in range(5):
        seen = [
            to_oklab(np.array(BLINDNESS[eyes]) @ to_linear(choose_style(0, family, shade).colour))
            for family in COLOURED
        ]
        assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > 0.06


def test_contrast_on_both_grounds() -> None:
    pairs = list_dark_colours()
    assert len({*pairs, *pairs.values()}) == 60
    for light, dark in pairs.items():
        assert measure_contrast(light, GROUNDS["light"]) >= 3
        assert measure_contrast(dark, GROUNDS["dark"]) >= 3
    assert measure_contrast("#000000", "#ffffff") == pytest.approx(21)


def test_series_that_are_no_rows_have_different_colours() -> None:
    assert len({choose_style(index).colour for index in range(30)}) == 30


def test_the_outline_of_a_marker_by_hand() -> None:
    """A square of width 8 around (0, 0), and a triangle that points up, where y points down."""
    corners = {tuple(map(float, pair.split())) for pair in re.findall(r"-?[\d.]+ -?[\d.]+", trace_marker("s", 8))}
    assert corners == {(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)}
    assert trace_marker("^", 8).replace("-0.00", "0.00").startswith("M0.00 -4.00")
    assert "C" in trace_marker("o", 8)
