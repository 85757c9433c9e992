"""Render a table of times as Markdown, CSV and text for the terminal: nothing is computed here."""

from __future__ import annotations

import rich.markup

from hellm_recbole.errors import strip_controls
from hellm_recbole.report.escaping import escape_markdown
from hellm_recbole.report.rendering import format_seconds, render_csv_lines, render_markdown_table
from hellm_recbole.report.terminal import create_console, create_view, print_view
from hellm_recbole.report.timing_table import RunTimes, TimingRow, TimingTable

ALL = "all rows"
COLUMNS = ("Building", "Training", "Validation", "Test", "Other", "Total", "Share", "Runs", "Threads", "Jobs")


def list_timing_lines(table: TimingTable) -> list[list[str]]:
    """List the lines of the table as texts: the name of the row, and the columns; the last line has the sums."""
    lines = [[row.name, *_write_times(row.times, table.sums), *_write_machine(row)] for row in table.rows]
    n_runs = sum(row.n_runs for row in table.rows)
    return [*lines, [ALL, *_write_times(table.sums, table.sums), str(n_runs), "", ""]]


def render_timings_markdown(table: TimingTable) -> str:
    """Render the table of times as GitHub Markdown, with the caption below."""
    lines = [[escape_markdown(name), *cells] for name, *cells in list_timing_lines(table)]
    text = render_markdown_table(["Row", *COLUMNS], lines, ["left", *["right"] * len(COLUMNS)])
    return f"# Times\n\n{text}\n\n{escape_markdown(' '.join(table.notes))}\n"


def render_timings_csv(table: TimingTable) -> str:
    """Render the table of times as CSV in seconds, with full precision; an empty field is an unknown number.

    `threads` and `jobs` have a number for each kind of run, with + between them; an unknown one is a question mark.
    """
    lines = [
        {"row": row.name, **_list_seconds(row.times), "runs": row.n_runs, "threads": threads, "jobs": jobs}
        for row in table.rows
        for _, threads, jobs in (_write_machine(row),)
    ]
    n_runs = sum(row.n_runs for row in table.rows)
    lines.append({"row": ALL, **_list_seconds(table.sums), "runs": n_runs, "threads": None, "jobs": None})
    return render_csv_lines(lines, list(lines[0]))


def render_timings_terminal(table: TimingTable, width: int | None = None) -> str:
    """Render the table of times for the terminal.

    Args:
        table: table to print.
        width: width in characters; None takes the width of the terminal.
    """
    console = create_console(width)
    view = create_view(["Row"], list(COLUMNS[:-3]))  # what does not fit into a narrow terminal is in the files
    for name, *cells in list_timing_lines(table):
        view.add_row(rich.markup.escape(strip_controls(name)), *cells[:-3])
    return print_view(console, view, table.notes)


def _write_times(times: RunTimes, sums: RunTimes) -> list[str]:
    """Write the times, their sum, and its share of the sum of all rows."""
    values = (times.build, times.train, times.valid, times.test, times.other, times.total)
    share = f"{times.total / sums.total:.0%}" if sums.total else ""
    return [*(format_seconds(value) or "" for value in values), share]


def _write_machine(row: TimingRow) -> list[str]:
    """Write the number of runs, their threads, and the number of runs side by side."""
    jobs = ["?" if number is None else str(number) for number in row.jobs]
    return [str(row.n_runs), "+".join(map(str, row.threads)), "+".join(jobs)]


def _list_seconds(times: RunTimes) -> dict[str, object]:
    """List the times by the name of their column in the CSV."""
    return {
        "build_seconds": times.build,
        "train_seconds": times.train,
        "valid_seconds": times.valid,
        "test_seconds": times.test,
        "other_seconds": times.other,
        "total_seconds": times.total,
    }
