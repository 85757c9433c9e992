"""Render a table of costs as Markdown, CSV, LaTeX and text for the terminal: nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import rich.markup

from hellm_recbole.errors import strip_controls
from hellm_recbole.report.cost_table import CostRow, CostTable
from hellm_recbole.report.escaping import escape_latex, escape_markdown
from hellm_recbole.report.plain_latex import render_plain_latex
from hellm_recbole.report.rendering import format_bytes, format_seconds, render_csv_lines, render_markdown_table
from hellm_recbole.report.terminal import create_console, create_view, print_view

WIDE = 130  # characters of a terminal that shows all columns
_NARROW = ("Training", "Ranking", "Row memory", "Energy, estimated")  # columns of a narrower one


def render_costs_markdown(table: CostTable) -> str:
    """Render the table of costs as GitHub Markdown, with the caption below."""
    columns = _list_columns(table)
    lines = [[escape_markdown(row.name), *(write(row) for write in columns.values())] for row in table.rows]
    text = render_markdown_table(["Row", *columns], lines, ["left", *["right"] * len(columns)])
    return f"# Costs\n\n{text}\n\n{escape_markdown(' '.join(table.notes))}\n"


def render_costs_csv(table: CostTable) -> str:
    """Render the table of costs as CSV with numbers at full precision; an empty field is an unknown number.

    The columns are the attributes of `CostRow`, with the metric in place of `accuracy`. Times are in seconds,
    sizes in bytes. `energy_wh_estimated` is in Wh.
    """
    lines: list[dict[str, object]] = []
    for row in table.rows:
        values = asdict(row)
        del values["index"]
        line = {table.metric if key == "accuracy" else key: value for key, value in values.items()}
        line["energy_wh_estimated"] = line.pop("energy_wh")
        lines.append(line)
    return render_csv_lines(lines, list(lines[0]))


def render_costs_latex(table: CostTable) -> str:
    r"""Render the table of costs as a LaTeX `table` environment; the document needs only `\usepackage{booktabs}`."""
    columns = _list_columns(table)
    lines = [["Row", *columns], *([row.name, *(write(row) for write in columns.values())] for row in table.rows)]
    return render_plain_latex(lines, escape_latex(" ".join(table.notes)), label="tab:costs")


def render_costs_terminal(table: CostTable, width: int | None = None) -> str:
    """Render the table of costs for the terminal; a narrow one shows some of the columns.

    Args:
        table: table to print.
        width: width in characters; None takes the width of the terminal.
    """
    console = create_console(width)
    every = _list_columns(table)
    shown = {
        name: write for name, write in every.items() if console.width >= WIDE or name in _NARROW or name == table.metric
    }
    view = create_view(["Row"], [name.replace(", ", ",\n") for name in shown])
    for row in table.rows:
        view.add_row(rich.markup.escape(strip_controls(row.name)), *(write(row) for write in shown.values()))
    rest = [] if len(shown) == len(every) else [f"Only in the files: {', '.join(n for n in every if n not in shown)}."]
    return print_view(console, view, [*table.notes, *rest])


def _list_columns(table: CostTable) -> dict[str, Callable[[CostRow], str]]:
    """List the columns after the name of the row, each with the function that writes it; all-empty ones are left out.

    The columns of memory and of energy always stay.
    """
    columns: dict[str, Callable[[CostRow], str]] = {
        table.metric: lambda row: f"{row.accuracy:.4f}",
        "Training": lambda row: format_seconds(row.train_seconds) or "",
        "Epochs": lambda row: _format_number(row.epochs),
        "Epoch": lambda row: format_seconds(row.epoch_seconds) or "",
        "Examples/s": lambda row: _format_number(row.examples_per_second),
        "Tokens/s": lambda row: _format_number(row.tokens_per_second),
        "Ranking": lambda row: format_seconds(row.rank_seconds) or "",
        "Targets/s": lambda row: _format_number(row.targets_per_second),
        "Device hours": lambda row: "" if row.device_hours is None else f"{row.device_hours:.4f}",
        "Row memory": lambda row: format_bytes(row.row_bytes) or "",
        "Device memory": lambda row: format_bytes(row.device_bytes) or "",
        "Energy, estimated": lambda row: "" if row.energy_wh is None else f"{row.energy_wh:.3g} Wh",
    }
    optional = ("Tokens/s", "Device memory")
    return {
        name: write for name, write in columns.items() if name not in optional or any(write(row) for row in table.rows)
    }


def _format_number(value: float | None) -> str:
    """Write a number with separators of thousands and, below 100, with one digit after the point.

    >>> _format_number(12345.6), _format_number(3.14), _format_number(None)
    ('12,346', '3.1', '')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
