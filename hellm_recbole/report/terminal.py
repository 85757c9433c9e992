"""Render a table for the terminal, fitted to its width, with rich."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import rich.box
import rich.markup
import rich.table
from rich.console import Console

from hellm_recbole.config.metric_names import find_metric_name
from hellm_recbole.errors import strip_controls
from hellm_recbole.plugins.metrics import is_plugin_metric
from hellm_recbole.report.protocols import FAMILY_TITLES
from hellm_recbole.report.rendering import MISSING, format_seconds
from hellm_recbole.report.tables import Row, Table

_WIDE = 80  # characters needed to show the two largest K; a narrower terminal shows only the largest one
_PER_METRIC = 9  # more characters for each metric of an installed package, so that names of models are not broken
_WITHOUT_FURTHER = 62  # characters for names of models, two metrics, seeds and the training time
_PER_FURTHER = 11  # characters of a metric that was asked for by name
_IDS = 12  # characters of the column of ids
_MARKS = {1: ("\u00b9", "bold"), 2: ("\u00b2", "underline")}


def create_console(width: int | None = None) -> Console:
    """Create a console of this width in characters; None takes the width of the terminal, if it has one."""
    console = Console(width=width, highlight=False, force_jupyter=False)  # in a notebook, it would show an empty output
    return console if console.width > 0 else Console(width=_WIDE, highlight=False, force_jupyter=False)


def choose_shown_metrics(console: Console, names: Sequence[str], taken: int = 0) -> Sequence[str]:
    """Choose the metrics that fit: those of the two largest K, or of the largest one if the terminal is narrow.

    Metrics of installed packages are shown at the largest K. Of those that were asked for by name, as many are shown as
    leave room for the names of the models.

    Args:
        console: console to print on.
        names: names of all metrics of the table.
        taken: number of characters that further columns need.
    """
    added = [name for name in names if is_plugin_metric(name)]
    further = [name for name in names if name not in added and find_metric_name(name) is not None]
    own = [name for name in names if name not in added and name not in further]
    largest = own[-1].partition("@")[2] if own else ""
    shown = [name for name in added if name.endswith(f"@{largest}")]
    room = console.width - _WITHOUT_FURTHER - taken - _PER_METRIC * len(shown)
    for name in further:
        room -= max(_PER_FURTHER, len(name) + 1)
        if room >= 0:
            shown.append(name)
    return [*own[-4 if console.width >= _WIDE + taken + _PER_METRIC * len(shown) else -2 :], *shown]


def create_view(names: Sequence[str], numbers: Sequence[str]) -> rich.table.Table:
    """Create a view without rows.

    Args:
        names: columns of names, which are folded if they are too long.
        numbers: columns of numbers, which are never cut.
    """
    view = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        view.add_column(name, overflow="fold")
    for name in numbers:
        view.add_column(name, justify="right", no_wrap=True)
    return view


def print_view(console: Console, view: rich.table.Table, notes: Sequence[str]) -> str:
    """Return a view with its notes below as text."""
    with console.capture() as capture:
        console.print(view)
        console.print("\n".join(map(strip_controls, notes)), markup=False)
    return capture.get()


def render_terminal(table: Table, width: int | None = None) -> str:
    """Render a short view for the terminal: the two largest K (one if the terminal is narrow) and the training time.

    All other columns are only in the files. There is a column with the number of seeds if a row has several; otherwise
    the notes name the seed.

    Args:
        table: table to print.
        width: width in characters; None takes the width of the terminal.
    """
    console = create_console(width)
    seeds = ["Seeds"] if any(len(row.seeds) > 1 for row in table.rows) else []
    shown_metrics = choose_shown_metrics(console, table.metrics, _IDS * table.shows_ids)
    numbers = [*shown_metrics, *seeds, "Training", *(["Id"] if table.shows_ids else [])]
    view = create_view(["Model", *(["Preset"] if table.several_presets else [])], numbers)
    for family, rows in groupby(table.rows, key=lambda row: row.family):
        view.add_row(f"[italic]{FAMILY_TITLES[family]}[/]")
        for row in rows:
            view.add_row(*_list_names(table, row), *_list_numbers(table, row, shown_metrics, bool(seeds)))
    asked = [name for name in table.metrics if find_metric_name(name) is not None and name not in shown_metrics]
    rest = [f"Only in the files, because the terminal is narrow: {', '.join(asked)}."] if asked else []
    return print_view(console, view, [*rest, *_list_notes(table)])


def _list_names(table: Table, row: Row) -> list[str]:
    """List model and preset of a row, without anything that rich or a terminal would execute."""
    letters = f" ({','.join(row.marks)})" if row.marks else ""
    names = [f" {strip_controls(row.model + letters).strip()}"]
    if table.several_presets:
        names.append(strip_controls(row.preset))
    return [rich.markup.escape(name) for name in names]


def _list_numbers(table: Table, row: Row, shown_metrics: Sequence[str], with_seeds: bool) -> list[str]:
    """List the numbers of a row; a row without numbers has only its status."""
    if row.problem is not None:
        return [f"[red]{row.status}[/red]"]
    numbers = [_format_cell(row, name, name in table.paper_metrics) for name in shown_metrics]
    numbers += [*([str(len(row.seeds))] if with_seeds else []), format_seconds(row.train_seconds) or MISSING]
    return [*numbers, *([row.number_id or MISSING] if table.shows_ids else [])]


def _list_notes(table: Table) -> list[str]:
    """List the lines below the view: warning, problems, caption and footnotes."""
    return [
        *([] if table.stamp is None else [table.stamp]),
        *(f"{row.model}: {row.problem}" for row in table.rows if row.problem is not None),
        *table.notes,
        *(["In parentheses: the paper's number."] if table.paper_metrics else []),
        "\u00b9 best (bold), \u00b2 second (underlined) of a column.",
        *([] if table.mark_note is None else [f"* {table.mark_note}"]),
        *(f"({footnote.mark}) {footnote.text}." if footnote.mark else str(footnote) for footnote in table.footnotes),
    ]


def _format_cell(row: Row, name: str, with_paper: bool) -> str:
    """Write the number with its marks, the standard deviation and the paper's number, each on its own line."""
    cell = row.cells.get(name)
    if cell is None:
        return f"{MISSING}  "
    mark, emphasis = _MARKS.get(cell.position, (" ", ""))
    lines = [f"[{emphasis}]{cell.mean:.4f}[/]" if emphasis else f"{cell.mean:.4f}"]
    lines[0] += mark + ("*" if cell.significant else " ")
    if cell.sd is not None:
        lines.append(f"\u00b1{cell.sd:.4f}  ")
    if with_paper:
        lines.append(f"({row.paper[name]:.4f}) " if name in row.paper else f"({MISSING}) ")
    return "\n".join(lines)
