"""Render a table of our numbers beside the paper's as Markdown, CSV and terminal text: nothing is computed here."""

from __future__ import annotations

import rich.markup

from hellm_recbole.errors import strip_controls
from hellm_recbole.report.escaping import escape_markdown
from hellm_recbole.report.rendering import MISSING, render_csv_lines, render_markdown_table
from hellm_recbole.report.reproduction import NOT_RUN, STOPPED, PairedNumber, PairedRow, PairedTable
from hellm_recbole.report.terminal import create_console, create_view, print_view


def render_paired_markdown(table: PairedTable) -> str:
    """Render the table as GitHub Markdown, with title and caption."""
    header = ["Run", *(["Row of the paper"] if table.has_paper else []), *_list_columns(table)]
    lines: list[list[str]] = []
    for row in table.rows:
        if row.section is not None:
            lines.append(_pad([f"**{escape_markdown(row.section)}**"], len(header)))
        letters = f" <sup>{','.join(row.marks)}</sup>" if row.marks else ""
        names = [escape_markdown(row.run) + letters]
        names += [escape_markdown(row.paper_row or MISSING)] if table.has_paper else []
        lines.append(_pad([*names, *map(escape_markdown, _list_numbers(table, row))], len(header)))
    n_names = len(header) - len(_list_columns(table))
    align = ["left"] * n_names + ["right"] * (len(header) - n_names)
    footnotes = "".join(f"- {escape_markdown(str(footnote))}\n" for footnote in table.footnotes)
    caption = " ".join([*map(escape_markdown, (*_list_problems(table), *table.notes)), *_explain_columns(table)])
    text = render_markdown_table(header, lines, align)
    return f"# {escape_markdown(table.title)}\n\n{text}\n\n{caption}\n" + (f"\n{footnotes}" if footnotes else "")


def render_paired_csv(table: PairedTable) -> str:
    """Render the table as CSV with numbers at full precision; an empty field is a missing value.

    `<metric>_paper` is the paper's number and `<metric>_against_paper_percent` the difference of ours from it.
    `<metric>_change_percent` and `<metric>_paper_change_percent` are the changes against the run `whole`. All these
    columns, and `paper_row`, `whole` and `<metric>_sd`, are left out where they would be empty in all lines.
    """
    lines, section = [], None
    for row in table.rows:
        section = row.section or section
        line: dict[str, object] = {
            "section": section,
            "run": row.run,
            "paper_row": row.paper_row,
            "whole": row.whole,
            "n_seeds": len(row.seeds),
            "seeds": " ".join(map(str, row.seeds)),
            "problem": row.problem,
        }
        for metric, number in row.numbers.items():
            changes = (number.against_paper, number.change, number.paper_change)
            percents = [None if change is None else 100.0 * change for change in changes]
            names = ("", "_sd", "_paper", "_against_paper_percent", "_change_percent", "_paper_change_percent")
            values = (number.ours, number.sd, number.paper, *percents)
            line |= {f"{metric}{name}": value for name, value in zip(names, values, strict=True)}
        lines.append(line)
    needed = {*("section", "run", "n_seeds", "seeds", "problem"), *table.metrics}
    return render_csv_lines(
        lines, [name for name in lines[0] if name in needed or any(line[name] is not None for line in lines)]
    )


def render_paired_terminal(table: PairedTable, width: int | None = None) -> str:
    """Render a view for the terminal, with the paper's number below ours.

    Args:
        table: table to print.
        width: width in characters; None takes the width of the terminal.
    """
    console = create_console(width)
    columns = [name for metric in table.metrics for name in (metric, *(["change"] if table.is_ablation else []))]
    view = create_view(["Run", *(["Row of the paper"] if table.has_paper else [])], columns)
    for row in table.rows:
        if row.section is not None:
            view.add_row(f"[italic]{rich.markup.escape(row.section)}[/]")
        letters = f" ({','.join(row.marks)})" if row.marks else ""
        names = [f" {strip_controls(row.run)}{letters}", *([row.paper_row or MISSING] if table.has_paper else [])]
        view.add_row(*map(rich.markup.escape, names), *_list_terminal_cells(table, row))
    notes = [
        *_list_problems(table),
        *(["In parentheses: the paper's number."] if table.has_paper else []),
        *table.notes,
        *(f"({footnote.mark}) {footnote.text}." if footnote.mark else str(footnote) for footnote in table.footnotes),
    ]
    return print_view(console, view, [table.title, *notes])


def _list_columns(table: PairedTable) -> list[str]:
    """Name the columns of numbers in Markdown."""
    columns = []
    for metric in table.metrics:
        columns += [metric, *([f"paper {metric}"] if table.has_paper else [])]
        if table.is_ablation:
            columns += [f"{metric} change", *([f"paper {metric} change"] if table.has_paper else [])]
        elif table.has_paper:
            columns.append(f"{metric} against paper")
    return columns


def _list_numbers(table: PairedTable, row: PairedRow) -> list[str]:
    """Write the numbers of a row in the columns of `_list_columns`."""
    cells = []
    for number in row.numbers.values():
        paper = [_format(number.paper), _format_change(number.paper_change)] if table.has_paper else []
        cells += [_format_mean(number), *paper[:1]]
        if table.is_ablation:
            cells += [_format_change(number.change), *paper[1:]]
        elif table.has_paper:
            cells.append(_format_change(number.against_paper))
    return cells


def _list_terminal_cells(table: PairedTable, row: PairedRow) -> list[str]:
    """Write the cells of a row for the terminal: ours, and the paper's number in parentheses below."""
    cells = []
    for number in row.numbers.values():
        pairs = [(_format(number.ours), _format(number.paper))]
        if table.is_ablation:
            pairs.append((_format_change(number.change), _format_change(number.paper_change)))
        spread = "" if number.sd is None else f"\n\u00b1{number.sd:.4f} "
        cells += [f"{ours} {spread}" + ("" if paper == MISSING else f"\n({paper})") for ours, paper in pairs]
    return cells


def _list_problems(table: PairedTable) -> list[str]:
    """Write why rows have no numbers: one sentence for all missing runs, one for all stopped, one for each failed."""
    beginnings = {NOT_RUN: "Missing, not run yet", STOPPED: "Stopped before they finished"}
    runs = {problem: [row.run for row in table.rows if row.problem == problem] for problem in beginnings}
    sentences = [f"{beginnings[problem]}: {', '.join(names)}." for problem, names in runs.items() if names]
    failed = [f"{row.run} {row.problem}." for row in table.rows if row.problem not in (None, *beginnings)]
    return [*sentences, *failed]


def _explain_columns(table: PairedTable) -> list[str]:
    """Explain the columns of changes."""
    if table.is_ablation:
        return ["Change: relative to the whole model of the same section, HeLLM or HeLLMPre."]
    return ["Against paper: relative difference of our number from the paper's."] if table.has_paper else []


def _format_mean(number: PairedNumber) -> str:
    """Write our number, with its standard deviation if there are several seeds."""
    return _format(number.ours) + ("" if number.sd is None else f" \u00b1 {number.sd:.4f}")


def _format(value: float | None) -> str:
    """Write a metric with four decimals."""
    return MISSING if value is None else f"{value:.4f}"


def _format_change(value: float | None) -> str:
    """Write a relative change in percent.

    >>> _format_change(-0.0514), _format_change(0.0)
    ('-5.1 %', '+0.0 %')
    """
    return MISSING if value is None else f"{100 * value:+.1f} %"


def _pad(cells: list[str], length: int) -> list[str]:
    """Fill a line of a table with empty cells."""
    return cells + [""] * (length - len(cells))
