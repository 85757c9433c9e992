"""Tables with the paper's numbers beside ours: what each format shows."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from hellm_recbole.report.rendering import MISSING
from hellm_recbole.report.reproduction_rendering import (
    render_paired_csv,
    render_paired_markdown,
    render_paired_terminal,
)
from tests.report.toy_pairs import EXPERIMENT, ROWS, add_toy_run, build_toy_table


def read_cells(markdown: str) -> list[list[str]]:
    lines = [line.strip("|").split("|") for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if set(line[0]) - set("-:")]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    add_toy_run(tmp_path, "HeLLMPre", [1, 1, 1, 30])
    add_toy_run(tmp_path, "HeLLMPre-without-CL", [1, 1, 30, 30])
    return tmp_path


def test_an_ablation_shows_the_change_of_both(results: Path) -> None:
    markdown = render_paired_markdown(build_toy_table(results))
    header, *lines = read_cells(markdown)
    assert header[:6] == ["Run", "Row of the paper", "R@20", "paper R@20", "R@20 change", "paper R@20 change"]
    assert lines[0] == ["**Whole**", *[""] * 9]
    assert lines[1][:6] == ["HeLLMPre", "(no label)", "0.7500", "0.0820", MISSING, MISSING]
    assert lines[2][:6] == ["HeLLMPre-without-CL", "w/o-CL", "0.5000", "0.0774", "-33.3 %", "-5.6 %"]
    assert lines[4][:6] == ["HeLLMPre-without-U2U", "w/o-U2U", MISSING, "0.0736", MISSING, "-10.2 %"]
    assert markdown.startswith("# Table 3, Toy\n")
    assert "Missing, not run yet: HeLLMPre-without-U2U, Pop." in markdown


def test_other_tables_show_the_difference_from_the_paper(results: Path) -> None:
    plain = replace(EXPERIMENT, rows=tuple(replace(row, whole=None) for row in ROWS))
    header, _, first, *_ = read_cells(render_paired_markdown(build_toy_table(results, plain)))
    assert header[2:5] == ["R@20", "paper R@20", "R@20 against paper"]
    assert first[2:5] == ["0.7500", "0.0820", f"{100 * (0.75 / 0.082 - 1):+.1f} %"]


def test_without_numbers_of_the_paper_its_columns_are_gone(tmp_path: Path) -> None:
    add_toy_run(tmp_path, "HeLLMPre", [1, 30], paper=None)
    markdown = render_paired_markdown(build_toy_table(tmp_path))
    assert read_cells(markdown)[0] == ["Run", "R@20", "R@20 change", "N@20", "N@20 change"]
    assert "(0." not in render_paired_terminal(build_toy_table(tmp_path), width=120)


def test_the_csv_has_full_precision_and_a_section_in_each_line(results: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(render_paired_csv(build_toy_table(results)))))
    assert [line["section"] for line in lines] == ["Whole", "Whole", "Others", "Others"]
    assert float(lines[1]["R@20_change_percent"]) == pytest.approx(-100 / 3, abs=1e-12)
    assert lines[1]["whole"] == "HeLLMPre"
    assert (lines[2]["R@20"], lines[2]["R@20_paper"], lines[2]["problem"]) == (
        "", "0.0736", "it has not been run",
    )  # fmt: skip
    assert lines[3]["R@20_paper"] == ""


def test_columns_that_would_be_empty_are_not_in_the_csv(tmp_path: Path) -> None:
    plain = replace(EXPERIMENT, rows=tuple(replace(row, whole=None) for row in ROWS), metrics=("R@20",))
    add_toy_run(tmp_path, "HeLLMPre", [1, 30], paper=None)
    always = ["section", "run", "n_seeds", "seeds", "problem", "R@20"]
    assert render_paired_csv(build_toy_table(tmp_path, plain)).splitlines()[0].split(",") == always
    add_toy_run(tmp_path, "HeLLMPre", [1, 30])
    assert render_paired_csv(build_toy_table(tmp_path, plain)).splitlines()[0].split(",") == [
        *("section", "run", "paper_row", "n_seeds", "seeds", "problem"),
        *("R@20", "R@20_paper", "R@20_against_paper_percent"),
    ]
    add_toy_run(tmp_path, "HeLLMPre", [1, 30], seed=2025)
    assert "R@20_sd" in render_paired_csv(build_toy_table(tmp_path, plain)).splitlines()[0].split(",")
    only_ours = render_paired_csv(build_toy_table(tmp_path, plain, rows=plain.rows[:1]))
    assert "problem" in only_ours.splitlines()[0].split(",")  # empty, but readers look for it


def test_stopped_runs_have_a_sentence_of_their_own(results: Path) -> None:
    table = build_toy_table(results, stopped={"HeLLMPre-without-U2U"})
    for text in (render_paired_markdown(table), render_paired_terminal(table, width=120)):
        assert "Missing, not run yet: Pop." in text
        assert "Stopped before they finished: HeLLMPre-without-U2U." in text


def test_the_terminal_shows_the_papers_number_in_parentheses(results: Path) -> None:
    add_toy_run(results, "HeLLMPre", [1, 1, 1, 1], seed=2025)
    shown = render_paired_terminal(build_toy_table(results), width=100)
    assert "0.8750" in shown
    assert "±0.1768" in shown
    assert "(0.0820)" in shown
    assert "(0.0736)" in shown  # also where ours is missing
    assert "Missing, not run yet: HeLLMPre-without-U2U, Pop." in shown
    assert f"({MISSING})" not in shown
    assert "In parentheses: the paper's number." in shown


def test_a_failed_run_has_a_sentence_with_its_reason(results: Path) -> None:
    add_toy_run(results, "Pop", None)
    table = build_toy_table(results)
    for text in (render_paired_markdown(table), render_paired_terminal(table, width=120)):
        assert "Pop failed: loss is NaN at step 7." in text
        assert "not run yet: HeLLMPre-without-U2U." in text


def test_names_from_the_results_are_not_executed(tmp_path: Path) -> None:
    add_toy_run(tmp_path, "HeLLMPre", [1, 1])
    table = build_toy_table(tmp_path)
    hostile = replace(table, rows=(replace(table.rows[0], run="[red]x[/red] | <b> _", section="[link=a]s[/link]"),))
    assert "[red]x[/red] | <b> _" in render_paired_terminal(hostile, width=120)
    assert "\\| \\<b\\> \\_" in render_paired_markdown(hostile)
