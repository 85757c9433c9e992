r"""Render a table as Markdown, CSV and LaTeX: nothing is computed here.

pandas writes the Markdown and the CSV. The LaTeX is written here, because pandas cannot write a family's name as a line
across the table, nor the reason of a failed row across the columns of its numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from hellm_recbole.report.cells import Cell
from hellm_recbole.report.comparisons import list_csv_columns
from hellm_recbole.report.escaping import escape_csv, escape_latex, escape_markdown
from hellm_recbole.report.protocols import FAMILY_TITLES
from hellm_recbole.report.tables import Row, Table

MISSING = "\u2013"  # in place of a missing value; LaTeX writes it as two hyphens
_SECONDS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
_BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (1.0, "B"))


@dataclass(frozen=True)
class _Style:
    """How an output format writes the parts of a table. The cells are the same in all formats.

    Attributes:
        text: function that escapes a text.
        best: format of the best number of a column.
        second: format of the second best number.
        plus_minus: text between a mean and its standard deviation.
        mark: star of a significant best row.
        missing: text for a missing value.
        letters: format of the letters of a row's footnotes.
    """

    text: Callable[[str], str]
    best: str
    second: str
    plus_minus: str
    mark: str
    missing: str
    letters: str


_MARKDOWN = _Style(escape_markdown, "**{}**", "<u>{}</u>", " \u00b1 ", "\\*", MISSING, " <sup>{}</sup>")
_LATEX = _Style(escape_latex, r"\textbf{{{}}}", r"\underline{{{}}}", r" $\pm$ ", "$^{*}$", "--", "$^{{{}}}$")


def render_markdown(table: Table) -> str:
    """Render the table as GitHub Markdown, with the caption below."""
    header = ["Group", *_build_header(table)]
    lines, group = [], ""
    for row in table.rows:
        title = FAMILY_TITLES[row.family]
        line = ["" if title == group else title, *_build_line(table, row, _MARKDOWN)]
        lines.append(line + [""] * (len(header) - len(line)))
        group = title
    text = render_markdown_table(header, lines, ["left", "left", *["right"] * (len(header) - 2)])
    caption = [*map(escape_markdown, table.notes), "**Best**, <u>second</u> of a column."]
    if table.mark_note is not None:  # only the sentence about a chosen row holds a name
        caption.append(f"\\* {table.mark_note if table.comparison is None else escape_markdown(table.mark_note)}")
    stamp = "" if table.stamp is None else f"**{escape_markdown(table.stamp)}**\n\n"
    footnotes = "".join(f"- {escape_markdown(str(footnote))}\n" for footnote in table.footnotes)
    return f"{stamp}{text}\n\n{' '.join(caption)}\n" + (f"\n{footnotes}" if footnotes else "")


def render_markdown_table(
    header: Sequence[str], lines: Sequence[Sequence[str]], align: Sequence[str] | None = None
) -> str:
    """Render lines of texts as a table of GitHub Markdown.

    Args:
        header: names of the columns.
        lines: texts of each line, as many as there are columns.
        align: "left" or "right" for each column; None aligns all columns to the left.
    """
    table = pd.DataFrame(list(lines), columns=list(header), dtype=object)
    return table.to_markdown(index=False, tablefmt="github", disable_numparse=True, colalign=align)


def render_csv(table: Table) -> str:
    """Render the table as CSV with numbers at full precision; an empty field is a missing value.

    `<metric>_sd` is the standard deviation over seeds, `<metric>_low` and `<metric>_high` are the ends of the bootstrap
    interval, `<metric>_p` is the corrected p-value of a row against the best other row or the chosen one, and
    `<metric>_paper` is the paper's number. `id` is the id of the row's numbers (see `number_ids`). If the table
    describes the comparisons, the columns of `comparisons.list_csv_columns` follow at the end.
    """
    lines = [_build_csv_line(table, row) for row in table.rows]
    return render_csv_lines(lines, list(lines[0]))


def render_csv_lines(lines: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Render lines, column -> value, as CSV. Numbers have full precision, and None is an empty field.

    >>> print(render_csv_lines([{"model": "=1+1", "R@10": 0.1, "p": None}], ["model", "R@10", "p"]), end="")
    model,R@10,p
    '=1+1,0.1,
    """
    escaped = [[escape_csv(line[column]) for column in columns] for line in lines]
    return pd.DataFrame(escaped, columns=list(columns), dtype=object).to_csv(index=False, lineterminator="\n")


def _build_csv_line(table: Table, row: Row) -> dict[str, object]:
    """Build the line of a row: column -> value."""
    line: dict[str, object] = {
        "protocol": table.protocol,
        "split_hash": table.split_hash,
        "group": row.family,
        "model": row.model,
        "source": row.source,
        "preset": row.preset,
        "status": row.status,
        "problem": row.problem,
        "n_seeds": len(row.seeds),
        "seeds": " ".join(map(str, row.seeds)),
    }
    for name in table.metrics:
        cell = row.cells.get(name)
        values = [None] * 5 if cell is None else [cell.mean, cell.sd, cell.low, cell.high, cell.p]
        line |= zip((name, *(f"{name}_{part}" for part in ("sd", "low", "high", "p"))), values, strict=True)
        if name in table.paper_metrics:
            line[f"{name}_paper"] = row.paper.get(name) if row.cells else None
    footnotes = [f.text for f in table.footnotes if row.seeds and (not f.mark or f.mark in row.marks)]
    return line | {
        "train_seconds": row.train_seconds,
        "host_bytes": row.host_bytes,
        "device_bytes": row.device_bytes,
        "trainable_parameters": row.trainable_parameters,
        "total_parameters": row.total_parameters,
        "search": None if row.search is None else row.search["budget"],
        "stamp": table.stamp,
        "footnotes": "; ".join(footnotes) or None,
        "id": row.number_id,
        **_list_comparison_columns(table, row),
    }


def _list_comparison_columns(table: Table, row: Row) -> dict[str, object]:
    """List the columns about the comparisons of a row, if the table describes them."""
    how = table.comparison
    if how is None:
        return {}
    line: dict[str, object] = {"test": how.tests[0], "correction": how.correction}
    for name in table.metrics:
        line |= list_csv_columns(how, name, row.cells[name].comparison if name in row.cells else None)
    return line


def render_latex(table: Table, label: str | None = None) -> str:
    r"""Render the table as a LaTeX `table` environment; the document needs only `\usepackage{booktabs}`.

    Args:
        table: table to render.
        label: name for `\ref`, from `name_latex_label`; None leaves it out.
    """
    header = _build_header(table)
    n_names = 2 if table.several_presets else 1  # columns before the numbers
    lines = []
    for family, rows in groupby(table.rows, key=lambda row: row.family):
        lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{FAMILY_TITLES[family]}}}}} \\"]
        for row in rows:
            line = _build_line(table, row, _LATEX)
            if row.problem is not None:
                line[n_names] = rf"\multicolumn{{{len(header) - n_names}}}{{l}}{{{line[n_names]}}}"
            lines.append(" & ".join(line) + r" \\")
    columns = "l" * n_names + "r" * (len(header) - n_names)
    return render_latex_table(columns, header, lines, _list_latex_sentences(table), label)


def render_latex_table(
    columns: str, header: Sequence[str], lines: Sequence[str], caption: Sequence[str], label: str | None
) -> str:
    """Render a LaTeX `table` environment.

    Args:
        columns: letters of the columns.
        header: names of the columns, not escaped.
        lines: lines of the table in LaTeX, each with its end.
        caption: sentences of the caption in LaTeX.
        label: name for references; None leaves it out.
    """
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\scriptsize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{' '.join(caption)}}}",
            *([] if label is None else [rf"\label{{{label}}}"]),
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(escape_latex, header)) + r" \\",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def name_latex_label(*parts: str) -> str:
    r"""Name the label of a LaTeX table: letters, digits and hyphens only.

    >>> name_latex_label("ml-100k", "table"), name_latex_label("My_Data", "ablation")
    ('tab:ml-100k-table', 'tab:my-data-ablation')
    """
    return "tab:" + "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)


def _list_latex_sentences(table: Table) -> list[str]:
    """List the sentences of the caption in LaTeX."""
    return [
        *([] if table.stamp is None else [rf"\textbf{{{escape_latex(table.stamp)}}}"]),
        *map(escape_latex, table.notes),
        r"\textbf{Best}, \underline{second} of a column.",
        *([] if table.mark_note is None else [f"$^{{*}}$ {escape_latex(table.mark_note)}"]),
        *(escape_latex(str(footnote)) for footnote in table.footnotes),
    ]


def _build_header(table: Table) -> list[str]:
    """Build the column names of a table."""
    header = ["Model", *(["Preset"] if table.several_presets else [])]
    for name in table.metrics:
        header += [name, *([f"paper {name}"] if name in table.paper_metrics else [])]
    header += ["Seeds", "Training", "Host memory", *(["Device memory"] if table.on_device else []), "Parameters"]
    return [*header, *(["Search"] if table.searched else []), *(["Id"] if table.shows_ids else [])]


def _build_line(table: Table, row: Row, style: _Style) -> list[str]:
    """Write a row in the columns of `_build_header`; a row without numbers has only its names and its problem."""
    letters = style.letters.format(",".join(row.marks)) if row.marks else ""
    line = [style.text(row.model) + letters, *([style.text(row.preset)] if table.several_presets else [])]
    if row.problem is not None:
        return [*line, style.text(row.problem)]
    for name in table.metrics:
        line.append(_format_cell(row.cells.get(name), style))
        if name in table.paper_metrics:
            line.append(f"{row.paper[name]:.4f}" if name in row.paper else style.missing)
    line += [
        str(len(row.seeds)),
        format_seconds(row.train_seconds) or style.missing,
        format_bytes(row.host_bytes) or style.missing,
        *([format_bytes(row.device_bytes) or style.missing] if table.on_device else []),
        style.missing if row.trainable_parameters is None else f"{row.trainable_parameters:,}",
    ]
    if table.searched:
        line.append(style.missing if row.search is None else style.text(row.search["budget"]))
    return [*line, *([row.number_id or style.missing] if table.shows_ids else [])]


def _format_cell(cell: Cell | None, style: _Style) -> str:
    """Write mean, star and standard deviation of a cell; a finished row may lack a metric of lists."""
    if cell is None:
        return style.missing
    number = {0: "{}", 1: style.best, 2: style.second}[cell.position].format(f"{cell.mean:.4f}")
    mark = style.mark if cell.significant else ""
    return number + mark + ("" if cell.sd is None else f"{style.plus_minus}{cell.sd:.4f}")


def format_seconds(value: float | None) -> str | None:
    """Write a duration in a readable unit; None stays None.

    >>> format_seconds(740.0), format_seconds(None)
    ('12.3 min', None)
    """
    return _format_quantity(value, _SECONDS)


def format_bytes(value: float | None) -> str | None:
    """Write a size in a readable unit; None stays None."""
    return _format_quantity(value, _BYTES)


def _format_quantity(value: float | None, units: Sequence[tuple[float, str]]) -> str | None:
    """Write a quantity in the largest unit that is not larger than it; None stays None."""
    if value is None:
        return None
    size, unit = next((pair for pair in units if value >= pair[0]), units[-1])
    return f"{value / size:.1f} {unit}"
