"""Figures of the page: which ones are drawn, and what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hellm_recbole.report.figures import (
    Chart,
    Grid,
    Panel,
    Series,
    draw_bars,
    draw_heat_maps,
    draw_lines,
    draw_scatter,
    find_pareto_front,
    set_exact_ticks,
    write_figure,
)
from hellm_recbole.report.finished_rows import find_finished_rows
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.page_figures import draw_page_figures, name_figure
from hellm_recbole.report.settings import read_report_settings
from hellm_recbole.report.studies import draw_study, list_studies
from hellm_recbole.report.tables import build_table
from tests.toy_records import add_run, toy_search, toy_trial


def test_the_pareto_front_by_hand() -> None:
    assert find_pareto_front([(3.0, 3.0), (1.0, 1.0), (2.0, 1.0), (2.0, 2.0), (4.0, 3.0)]) == [
        (1.0, 1.0),
        (2.0, 2.0),
        (3.0, 3.0),
    ]


def test_figures_name_their_axes_and_rows(tmp_path: Path) -> None:
    series = [Series(f"row {n}", n, [1, 2, 3], [n, n + 1, n]) for n in range(20)]
    figure = draw_lines([Panel("left", "K", "Recall@K", series), Panel("right", "K", "NDCG@K", series, log_x=True)])
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes] == [("K", "Recall@K"), ("K", "NDCG@K")]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"row {n}" for n in range(20)]
    styles = {(line.get_marker(), line.is_dashed(), line.get_color()) for line in figure.axes[0].lines}
    assert len(styles) == 20  # each row has its own style
    set_exact_ticks(figure, [1, 2, 3])
    assert figure.axes[0].get_xticks().tolist() == [1, 2, 3]
    first, again = (write_figure(tmp_path, name, draw_lines([Panel("p", "x", "y", series)])) for name in "ab")
    assert first.read_bytes() == again.read_bytes()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.pdf").read_bytes()[:5] == b"%PDF-"
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    dots = draw_scatter([Panel("t", "minutes", "N@20", [Series("a", 0, [1.0], [0.2]), Series("b", 1, [2.0], [0.1])])])
    assert [text.get_text() for text in dots.legends[0].get_texts()] == ["a", "b"]


@pytest.mark.parametrize("name", ["row {}", "Fusion(SASRec-text-llm,SASRec-text,HeLLM-plus)-priors@gemma-3-270m-q4-{}"])
def test_the_legend_of_25_rows_is_complete_and_leaves_room_for_the_panels(name: str) -> None:
    series = [Series(name.format(n), n, [1, 2, 3], [n, n + 1, n], "llm", n) for n in range(25)]
    chart = Chart([Panel("left", "K", "Recall@K", series), Panel("right", "K", "NDCG@K", series)])
    figure = chart.draw()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    box, page = legend.get_window_extent(canvas.get_renderer()), figure.bbox
    assert box.x0 >= page.x0
    assert box.x1 <= page.x1
    assert box.y0 >= page.y0
    for ax in figure.axes:
        assert ax.get_window_extent().y0 > box.y1
        assert ax.get_window_extent().height / figure.dpi > 1.5  # inches
    shown = [text.get_text().replace("\n", "") for text in legend.get_texts()]
    assert shown == [name.format(n) for n in range(25)] == list(chart.list_names())


def test_panels_for_the_page_have_no_legend_and_named_series() -> None:
    panel = Panel("t", "K", "N@K", [Series("a", 0, [1, 2], [1, 2]), Series("b", 1, [1, 2], [2, 1])])
    (lines,), (points,) = Chart([panel]).draw_panels(), Chart([panel], "scatter").draw_panels()
    assert (lines.legends, points.legends) == ([], [])
    assert [line.get_gid() for line in lines.axes[0].lines] == ["series-0", "series-1"]
    assert [line.get_gid() for line in points.axes[0].lines] == ["front", "series-0", "series-1"]


def test_a_single_row_is_named_in_the_legend() -> None:
    one = Panel("t", "epoch", "N@20", [Series("VBPR", 0, [1, 2], [0.1, 0.2])])
    (legend,) = draw_lines([one, one]).legends
    assert [text.get_text() for text in legend.get_texts()] == ["VBPR"]
    assert draw_lines([Panel("VBPR", "k", "N@20", [Series("", 0, [1, 2], [0.1, 0.2])])]).legends == []


@pytest.mark.parametrize("ticks", [("1", "2-9", "10-12345"), ("cold", "tail 1-20", "head 21000-345678")])
def test_the_names_of_categories_stay_below_their_axes(ticks: tuple[str, ...]) -> None:
    figure = draw_lines([Panel("t", "x", "y", [Series("a", 0, [0, 1, 2], [1, 2, 3])], ticks=ticks)] * 2)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for ax in figure.axes:
        ends = [label.get_window_extent(canvas.get_renderer()).x1 for label in ax.get_xticklabels()]
        assert max(ends) <= ax.get_window_extent().x1


def test_bars_and_heat_maps_show_their_values() -> None:
    figure = draw_bars("whole", "change (%)", ["a", "b"], [-3.0, 1.0], [(-5.0, -1.0), (-1.0, 3.0)])
    (ax,) = figure.axes
    assert [patch.get_width() for patch in ax.patches] == [-3.0, 1.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    values = np.array([[0.1, 0.2], [np.nan, 0.4]])
    heat_map = draw_heat_maps([Grid("N@20", "item", "user", [0.1, 0.9], [0.3, 0.5], values)])
    assert sorted(text.get_text() for text in heat_map.axes[0].texts) == [".1000", ".2000", ".4000"]
    assert heat_map.axes[0].get_xlabel() == "item"


def test_studies_of_the_paper() -> None:
    found = list_studies("HeLLMPre")
    assert list(found) == ["neighbors", "temperature", "l2", "width", "contrast"]
    trials = [toy_trial(n, 0.1 * n, values={"l2_weight": 10.0**-n}) for n in (3, 1, 5)]
    search = toy_search(trials, row="HeLLMPre", name="study-l2", space={"l2_weight": [1e-5, 1e-3, 1e-1]})
    study = draw_study(search)
    assert study is not None
    left, right = study.figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("R@20, validation", "N@20, validation")
    assert right.lines[0].get_xdata().tolist() == [1e-5, 1e-3, 1e-1]  # type: ignore[union-attr]
    assert right.lines[0].get_ydata() == pytest.approx([0.5, 0.3, 0.1])
    assert right.get_xscale() == "log"
    assert draw_study(toy_search(trials, name="tune")) is None


def test_a_cutoff_larger_than_50_has_its_own_value(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 70])
    frame, settings = read_frame(tmp_path, "Toy"), read_report_settings()
    rows = find_finished_rows(build_table(frame, "unified", settings), frame)
    drawn = {figure.name: figure.figure for figure in draw_page_figures(frame, rows, None, [], (80,), settings)}
    assert [ax.get_ylabel() for ax in drawn["cost"].axes] == ["N@80, test"] * 2
    for ax in drawn["cost"].axes:
        assert ax.lines[-1].get_ydata() == [pytest.approx((1 + 1 / np.log2(71)) / 2)]
    assert drawn["over-k"].axes[0].lines[0].get_xdata()[-1] == 80  # type: ignore[index]


def test_a_search_is_drawn_and_one_without_metrics_is_not(tmp_path: Path) -> None:
    add_run(tmp_path, None)
    frame = read_frame(tmp_path, "Toy")
    search = toy_search([toy_trial(1, 0.1), toy_trial(2, 0.2)], row="HeLLM@a/b")
    nothing = toy_search([toy_trial(1, 0.1, curve=(), valid={})])
    (figure,) = draw_page_figures(frame, [], None, [search, nothing], (10,), read_report_settings())
    assert (figure.name, figure.title) == ("HeLLM-a-b-tune", "Search of HeLLM@a/b")
    assert name_figure(search) == figure.name
