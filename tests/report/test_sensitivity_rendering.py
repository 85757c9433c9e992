from __future__ import annotations

import csv
import io

from hellm_recbole.report.sensitivity import Change, Sensitivity, SensitivityLine
from hellm_recbole.report.sensitivity_rendering import (
    render_sensitivity_csv,
    render_sensitivity_markdown,
    render_sensitivity_terminal,
)

CHANGE = Change(0.25, None, 0.05, 0.04, 0.061)
REPEATED = Change(0.15, 0.01, -0.05, -0.061, -0.04)
LINES = (
    SensitivityLine("A", "mask", "train", {"R@10": 0.2}, {"R@10": CHANGE}),
    SensitivityLine("A", "order of ties in time", "2 random", {"R@10": 0.2}, {"R@10": REPEATED}),
    SensitivityLine("B[x]", "mask", "train", {"R@10": 0.1}, {"R@10": CHANGE}),
)
TABLE = Sensitivity(("R@10",), LINES, ("First note.", "Second note."))


def test_markdown_has_a_row_for_the_usual_rules_of_each_model() -> None:
    lines = render_sensitivity_markdown(TABLE).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0] == ["model", "rule", "R@10"]
    assert cells[2:] == [
        ["A", "usual rules", "0.2000"],
        ["A", "mask: train", "0.2500 +0.0500 [+0.0400, +0.0610]"],
        ["A", "order of ties in time: 2 random", "0.1500 \u00b1 0.0100 -0.0500 [-0.0610, -0.0400]"],
        ["B[x]", "usual rules", "0.1000"],
        ["B[x]", "mask: train", "0.2500 +0.0500 [+0.0400, +0.0610]"],
    ]
    assert lines[-2:] == ["- First note.", "- Second note."]


def test_the_terminal_names_each_model_once() -> None:
    text = render_sensitivity_terminal(TABLE, 120)
    assert text.count("usual rules") == 2
    assert "B[x]" in text
    assert "[+0.0400, +0.0610]" in text
    assert "Second note." in text


def test_csv_has_a_line_for_each_rule_and_metric() -> None:
    rows = list(csv.DictReader(io.StringIO(render_sensitivity_csv(TABLE))))
    assert len(rows) == 3
    assert rows[1] == {
        **{"model": "A", "rule": "order of ties in time", "choice": "2 random", "metric": "R@10"},
        **{"usual": "0.2", "value": "0.15", "sd": "0.01", "change": "-0.05", "low": "-0.061", "high": "-0.04"},
    }
    assert rows[0]["sd"] == ""
