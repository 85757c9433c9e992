from __future__ import annotations

from pathlib import Path

from hellm_recbole.report.cost_figures import draw_cost_figures
from tests.report.test_cost_table import TRAINED, make_costs
from tests.report.toy_tables import build_ranks
from tests.toy_records import add_run


def test_each_panel_has_the_rows_whose_cost_is_known(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), **TRAINED)
    add_run(tmp_path, build_ranks(10, 1), model="VBPR", family="multimodal", **{**TRAINED, "costs": None})
    (figure,) = draw_cost_figures(make_costs(tmp_path))
    titles = [ax.get_title() for ax in figure.figure.axes]
    assert titles == ["against ranking time", "against row memory", "against energy"]
    counts = [sum(not str(line.get_label()).startswith("_") for line in ax.lines) for ax in figure.figure.axes]
    assert counts == [2, 1, 2]
    assert "estimated" in figure.figure.axes[2].get_xlabel()
    assert "estimated" in figure.caption


def test_without_any_known_cost_there_is_no_figure(tmp_path: Path) -> None:
    unknown = {**TRAINED, "costs": None, "eval_seconds": None, "train_seconds": None}
    add_run(tmp_path, build_ranks(10, 1), **unknown)
    assert draw_cost_figures(make_costs(tmp_path)) == []
