"""Format a table of sensitivity for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import rich.markup

from hellm_recbole.errors import strip_controls
from hellm_recbole.report.ablation_rendering import LOG_WIDTH
from hellm_recbole.report.rendering import render_csv_lines, render_markdown_table
from hellm_recbole.report.sensitivity import USUAL, Change, Sensitivity
from hellm_recbole.report.terminal import choose_shown_metrics, create_console, create_view, print_view

FILE = "sensitivity"  # name of the files without ending
CSV_COLUMNS = ("model", "rule", "choice", "metric", "usual", "value", "sd", "change", "low", "high")


def format_change(change: Change) -> str:
    """Format one metric under a changed rule.

    >>> format_change(Change(0.25, None, 0.05, 0.04, 0.061))
    '0.2500 +0.0500 [+0.0400, +0.0610]'
    """
    spread = "" if change.sd is None else f" \u00b1 {change.sd:.4f}"
    return f"{change.mean:.4f}{spread} {change.change:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"


def list_rows(sensitivity: Sensitivity, names: Sequence[str]) -> list[list[str]]:
    """List the cells of all rows: model, rule and choice, metrics. Each model begins with the usual rules."""
    rows: list[list[str]] = []
    model = None
    for line in sensitivity.lines:
        if line.model != model:
            rows.append([line.model, USUAL, *(f"{line.usual[name]:.4f}" for name in names)])
            model = line.model
        rows.append([line.model, f"{line.rule}: {line.choice}", *(format_change(line.changes[name]) for name in names)])
    return rows


def render_sensitivity_terminal(sensitivity: Sensitivity, width: int | None = None) -> str:
    """Format a table for the terminal, with the metrics of the largest K.

    Args:
        sensitivity: table to print.
        width: width in characters; None takes the width of the terminal, or `LOG_WIDTH` without a terminal.
    """
    in_log = width is None and not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = create_console(LOG_WIDTH if in_log else width)
    names = choose_shown_metrics(console, sensitivity.metrics)[-2:]
    view = create_view(["model", "rule"], names)
    shown = None
    for model, rule, *cells in list_rows(sensitivity, names):
        view.add_row("" if model == shown else rich.markup.escape(model), rule, *map(rich.markup.escape, cells))
        shown = model
    return print_view(console, view, sensitivity.notes)


def render_sensitivity_markdown(sensitivity: Sensitivity) -> str:
    """Format a table as Markdown, with all metrics and the caption below."""
    header = ["model", "rule", *sensitivity.metrics]
    table = render_markdown_table(header, list_rows(sensitivity, sensitivity.metrics))
    notes = "\n".join(f"- {strip_controls(note)}" for note in sensitivity.notes)
    return f"{table}\n\n{notes}\n"


def render_sensitivity_csv(sensitivity: Sensitivity) -> str:
    """Format a table as CSV: one line for each row, changed rule and metric."""
    lines: list[dict[str, object]] = []
    for line in sensitivity.lines:
        for name, change in line.changes.items():
            described = {"model": line.model, "rule": line.rule, "choice": line.choice, "metric": name}
            numbers = {"usual": line.usual[name], "value": change.mean, "sd": change.sd, "change": change.change}
            lines.append({**described, **numbers, "low": change.low, "high": change.high})
    return render_csv_lines(lines, CSV_COLUMNS)
