"""Render an ablation table as Markdown, CSV, LaTeX and text for the terminal: nothing is computed here."""

from __future__ import annotations

import os
import sys

import rich.markup

from hellm_recbole.errors import strip_controls
from hellm_recbole.report.ablation import Ablation, AblationRow
from hellm_recbole.report.escaping import escape_latex
from hellm_recbole.report.rendering import render_csv_lines, render_latex_table, render_markdown_table
from hellm_recbole.report.terminal import choose_shown_metrics, create_console, create_view, print_view

LOG_WIDTH = 160  # columns in a file or a pipe, so that the names of variants are not cut into lines


def render_ablation_markdown(ablation: Ablation) -> str:
    """Render the ablation table as GitHub Markdown, with the caption below."""
    metrics = list(ablation.rows[0].means)
    presets = ["Preset"] if ablation.several_presets else []
    header = ["Row", *presets, *metrics, f"{ablation.metric} change in %", "p", "Seeds"]
    lines = [
        [*_list_names(ablation, row), *(f"{row.means[name]:.4f}" for name in metrics), *_list_tested(row)]
        for row in ablation.rows
    ]
    footnotes = "".join(f"\n- {strip_controls(sentence)}" for sentence in ablation.footnotes)
    caption = f"{ablation.note}; \\* {ablation.mark_note}{footnotes}"
    return f"{render_markdown_table(header, lines)}\n\n{caption}\n"


def render_ablation_csv(ablation: Ablation) -> str:
    """Render the ablation table as CSV.

    `<metric>_change_percent` is the change against the whole model. `<metric>_change_percent_low` and
    `<metric>_change_percent_high` are the ends of its bootstrap interval. All three are in percent of the whole model's
    mean. `<metric>_p` is the Holm-corrected p-value.
    """
    lines: list[dict[str, object]] = []
    for row in ablation.rows:
        line: dict[str, object] = {"model": row.model, "preset": row.preset, "n_seeds": row.n_seeds, **row.means}
        for ending, value in (("", row.change), ("_low", row.low), ("_high", row.high)):
            line[f"{ablation.metric}_change_percent{ending}"] = None if value is None else 100.0 * value
        lines.append({**line, f"{ablation.metric}_p": row.p})
    return render_csv_lines(lines, list(lines[0]))


def render_ablation_latex(ablation: Ablation, label: str) -> str:
    r"""Render the ablation table as a LaTeX `table` environment; the document needs only `\usepackage{booktabs}`.

    Args:
        ablation: table to render.
        label: name for `\ref`.
    """
    metrics = list(ablation.rows[0].means)
    presets = ["Preset"] if ablation.several_presets else []
    header = ["Row", *presets, *metrics, f"{ablation.metric} change", "p", "Seeds"]
    lines = []
    for row in ablation.rows:
        rule = [r"\midrule"] if row.change is None and row.p is None else []  # above each whole model
        tested = [cell.replace("%", r"\%").replace("*", "$^{*}$") for cell in _list_tested(row)]
        cells = [*map(escape_latex, _list_names(ablation, row)), *(f"{value:.4f}" for value in row.means.values())]
        lines += [*rule, " & ".join([*cells, *tested]) + r" \\"]
    sentences = [f"{ablation.note}.", *ablation.footnotes]
    caption = [*map(escape_latex, sentences), f"$^{{*}}$ p {escape_latex(ablation.mark_note)}"]
    columns = "l" * (1 + len(presets)) + "r" * (len(metrics) + 3)
    return render_latex_table(columns, header, lines, caption, label)


def render_ablation_terminal(ablation: Ablation, width: int | None = None) -> str:
    """Render a short view for the terminal; the metrics at all other cut-offs are only in the files.

    Args:
        ablation: table to print.
        width: width in characters; None takes the width of the terminal, or `LOG_WIDTH` without a terminal.
    """
    in_log = width is None and not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = create_console(LOG_WIDTH if in_log else width)
    metrics = choose_shown_metrics(console, list(ablation.rows[0].means))
    presets = ["Preset"] if ablation.several_presets else []
    view = create_view(["Row", *presets], [*metrics, f"{ablation.metric}\nchange", "p", "Seeds"])
    for row in ablation.rows:
        names = map(rich.markup.escape, _list_names(ablation, row))
        view.add_row(*names, *(f"{row.means[name]:.4f}" for name in metrics), *_list_tested(row))
    notes = [f"{ablation.note}.", f"* p {ablation.mark_note}", *(f"- {sentence}" for sentence in ablation.footnotes)]
    return print_view(console, view, notes)


def _list_names(ablation: Ablation, row: AblationRow) -> list[str]:
    """List model and, if rows have different ones, preset of a row, without control characters."""
    return [strip_controls(name) for name in ([row.model, row.preset] if ablation.several_presets else [row.model])]


def _list_tested(row: AblationRow) -> list[str]:
    """List change, p-value with its star, and number of seeds of a row."""
    return [
        "" if row.change is None else f"{row.change:+.1%}",
        "" if row.p is None else f"{row.p:.4f}{'*' if row.starred else ''}",
        str(row.n_seeds),
    ]
