"""Tables in the terminal: width, marks and lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hellm_recbole.config.metric_names import parse_metric_names
from hellm_recbole.report.files import write_reports
from hellm_recbole.report.terminal import render_terminal
from tests.report.toy_tables import build_ranks, make_table, write_toy_runs
from tests.toy_records import add_run


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_terminal_view_fits_and_cuts_no_number(tmp_path: Path, width: int) -> None:
    write_toy_runs(tmp_path, dataset="Beauty", paper="Beauty")
    add_run(
        tmp_path, build_ranks(10, 1), model="[b]A_long_model_name", preset="quick", dataset="Beauty", paper="Beauty"
    )
    text = render_terminal(make_table(tmp_path, "paper", "Beauty"), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\u2026" not in text
    assert "\x1b" not in text
    for shown in ("0.7500\u00b9*", "0.3750\u00b2", "\u00b10.1768", "(0.0669)", "2.0 min", "Sequential"):
        assert shown in text
    assert "[b]" in text
    assert ("R@10" in text) == (width >= 80)


def test_the_terminal_view_of_language_models_in_80_columns_has_each_on_one_line(tmp_path: Path) -> None:
    name = "HeLLM@gemma-3-270m-q4-2L"
    add_run(tmp_path, build_ranks(10, 1), model=name, seed=2024)
    lines = render_terminal(make_table(tmp_path), 80).splitlines()
    assert any(name in line and "0.2500" in line for line in lines)
    assert not any("Seeds" in line for line in lines)
    add_run(tmp_path, build_ranks(10, 1), model=name, seed=2025)
    assert any("Seeds" in line for line in render_terminal(make_table(tmp_path), 80).splitlines())


def test_a_table_of_failed_runs_shows_their_reasons(tmp_path: Path) -> None:
    add_run(tmp_path, None)
    add_run(tmp_path, None, model="VBPR", status="cancelled", reason="stopped by the user")
    shown = write_reports(tmp_path, "Toy", "unified")
    assert "VBPR: cancelled: stopped by the user" in shown


def test_names_keep_their_room_and_what_does_not_fit_is_named(tmp_path: Path) -> None:
    table = make_table(
        write_toy_runs(tmp_path), rank_metrics=parse_metric_names("MRR,HR@5,HR@10,MAP@5,MAP@10,MRR@5,MRR@10")
    )
    narrow, wide = render_terminal(replace(table, shows_ids=True), 80), render_terminal(table, 200)
    assert "MRR@10" in wide
    assert "Only in the files" not in wide
    assert "Only in the files, because the terminal is narrow: " in narrow
    assert all(len(line) <= 80 for line in narrow.splitlines())
    for row in table.rows:
        assert row.model in narrow
        assert row.number_id is None or row.number_id in narrow
