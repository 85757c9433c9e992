"""Render an audit table as Markdown, CSV, LaTeX and text for the terminal: nothing is computed here."""

from __future__ import annotations

import rich.markup

from hellm_recbole.errors import strip_controls
from hellm_recbole.report.audit import Audit, AuditRow
from hellm_recbole.report.escaping import escape_latex, escape_markdown
from hellm_recbole.report.plain_latex import render_plain_latex
from hellm_recbole.report.rendering import render_csv_lines, render_markdown_table
from hellm_recbole.report.terminal import create_console, create_view, print_view

TITLE = "What a modality brings"


def render_audit_markdown(audit: Audit) -> str:
    """Render the audit table as GitHub Markdown, with the findings and the caption below."""
    lines = [[escape_markdown(row.model), *map(escape_markdown, _list_numbers(audit, row))] for row in audit.rows]
    table = render_markdown_table(["Row", *_list_columns(audit)], lines)
    findings = "".join(f"- {escape_markdown(sentence)}\n" for sentence in audit.findings)
    footnotes = "".join(f"- {escape_markdown(sentence)}.\n" for sentence in audit.footnotes)
    return f"# {TITLE}\n\n{table}\n\n{findings}\n{escape_markdown(audit.note)}.\n" + (
        f"\n{footnotes}" if footnotes else ""
    )


def render_audit_csv(audit: Audit) -> str:
    """Render the audit table as CSV with a line for each row and metric, and numbers at full precision.

    `change_percent`, `low_percent` and `high_percent` are in percent of the mean of the row with true features, and `p`
    is the Holm-corrected p-value. All four are empty for the row with true features.
    """
    lines: list[dict[str, object]] = []
    for row in audit.rows:
        for metric in audit.metrics:
            found = row.changes.get(metric)
            parts = (None, None, None) if found is None else (found.change, found.low, found.high)
            percents = [None if value is None else 100.0 * value for value in parts]
            lines.append(
                {
                    "model": row.model,
                    "preset": row.preset,
                    "true_row": None if row.change is None else row.change.row,
                    "change": None if row.change is None else row.change.change,
                    "modality": None if row.change is None else row.change.modality or "all",
                    "features_sha256": " ".join(f"{k}={v}" for k, v in row.features_sha256.items()),
                    "seeds": " ".join(map(str, row.seeds)),
                    "metric": metric,
                    "mean": row.means[metric],
                    **dict(zip(("change_percent", "low_percent", "high_percent"), percents, strict=True)),
                    "p": None if found is None else found.p,
                    "verdict": row.verdict,
                }
            )
    return render_csv_lines(lines, list(lines[0]))


def render_audit_latex(audit: Audit) -> str:
    r"""Render the audit table as a LaTeX `table` environment; the document needs only `\usepackage{booktabs}`."""
    lines = [[row.model, *_list_numbers(audit, row)] for row in audit.rows]
    caption = [f"{TITLE}: {audit.note}.", *audit.findings, *(f"{sentence}." for sentence in audit.footnotes)]
    return render_plain_latex(
        [["Row", *_list_columns(audit)], *lines], " ".join(map(escape_latex, caption)), label="tab:audit"
    )


def render_audit_terminal(audit: Audit, width: int | None = None) -> str:
    """Render the audit table for the terminal, with the findings below.

    Args:
        audit: table to print.
        width: width in characters; None takes the width of the terminal.
    """
    view = create_view(["Row"], _list_columns(audit))
    for row in audit.rows:
        view.add_row(rich.markup.escape(strip_controls(row.model)), *_list_numbers(audit, row))
    notes = [*audit.findings, f"{audit.note}.", *(f"- {sentence}." for sentence in audit.footnotes)]
    return print_view(create_console(width), view, notes)


def _list_columns(audit: Audit) -> list[str]:
    """List the columns after the name of the row."""
    presets = ["Preset"] if len({row.preset for row in audit.rows}) > 1 else []
    return [*presets, *(part for name in audit.metrics for part in (name, "change", "p")), "Seeds"]


def _list_numbers(audit: Audit, row: AuditRow) -> list[str]:
    """List the texts of a row in the columns of `_list_columns`."""
    texts = [strip_controls(row.preset)] if "Preset" in _list_columns(audit) else []
    for name in audit.metrics:
        found = row.changes.get(name)
        texts.append(f"{row.means[name]:.4f}")
        texts.append("" if found is None or found.change is None else f"{found.change:+.1%}")
        texts.append("" if found is None else f"{found.p:.4f}{'*' if found.p < audit.level else ''}")
    return [*texts, str(len(row.seeds))]
