"""Tables in a notebook: the same numbers as in the other formats, every value escaped."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.report.html_table import render_html
from tests.report.toy_tables import build_ranks, make_table, write_toy_runs
from tests.toy_records import add_run


def test_the_view_has_rows_intervals_marks_and_caption(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    table = make_table(tmp_path)
    html = render_html(table)
    for row in table.rows:
        assert f">{row.model}" in html
        for name in table.metrics[-4:] if row.problem is None else ():
            cell = row.cells[name]
            assert f"{cell.mean:.4f}{'*' * cell.significant}" in html
            assert f"{cell.low:.3f} \u2013 {cell.high:.3f}" in html
    assert [name for name in table.metrics if f">{name}</th>" in html] == [*table.metrics[-4:]]
    cells = [row.cells[name] for row in table.rows if row.problem is None for name in table.metrics[-4:]]
    assert html.count("font-weight:700") == sum(cell.position == 1 for cell in cells) >= 4
    assert all(note in html for note in table.notes)
    assert html.count("<tr>") == html.count("</tr>")


def test_names_are_escaped_and_failed_runs_have_their_reason(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), model="<script>x", preset="quick")
    add_run(tmp_path, build_ranks(10, 1), model="VBPR", preset="paper")
    add_run(tmp_path, None, model="BM3", status="failed", reason="no <memory>")
    html = render_html(make_table(tmp_path))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "no &lt;memory&gt;" in html
    assert ">Preset</th>" in html
