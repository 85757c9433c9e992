"""The files of a report, made from one reading of a dataset's runs.

- `table.{md,csv,tex}` is the table of the protocol `unified`. `table-paper.{md,csv,tex}` is the table of the protocol
  `paper`. It is written if the paper has the dataset or if this protocol is requested.
- `slices.csv` has the metrics of parts of the test targets.
- `ablation.{md,csv}` compares variants with their models, at the cut-offs of the runs. It is written if a variant has
  finished.
- `audit.{md,csv,tex}` compares rows with changed features with their models. It is written if such a row has finished.
- `costs.{md,csv,tex}` has the costs of the rows. It is written if it is requested.
- `ledger.{md,csv}` has published numbers beside those of the runs, and `claims.csv` the verdicts on the claims of the
  paper's text. They are written if they are requested.
- `report.html` and `figures/` are the page. It is written if it is requested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from hellm_recbole.config.request import Protocol
from hellm_recbole.experiments.sweeps import SearchResult, find_searches
from hellm_recbole.report.ablation import Ablation, build_ablation
from hellm_recbole.report.ablation_rendering import (
    render_ablation_csv,
    render_ablation_markdown,
    render_ablation_terminal,
)
from hellm_recbole.report.audit import Audit, build_audit
from hellm_recbole.report.audit_rendering import (
    render_audit_csv,
    render_audit_latex,
    render_audit_markdown,
    render_audit_terminal,
)
from hellm_recbole.report.cost_rendering import (
    render_costs_csv,
    render_costs_latex,
    render_costs_markdown,
    render_costs_terminal,
)
from hellm_recbole.report.cost_table import CostTable, build_cost_table, read_cost_settings
from hellm_recbole.report.finished_rows import find_finished_rows
from hellm_recbole.report.frame import ReportFrame, read_frame
from hellm_recbole.report.ledger import Ledger, build_ledger, has_references
from hellm_recbole.report.ledger_rendering import (
    render_claims_csv,
    render_ledger_csv,
    render_ledger_markdown,
    render_ledger_terminal,
)
from hellm_recbole.report.rendering import render_csv, render_latex, render_markdown
from hellm_recbole.report.settings import ReportSettings, read_report_settings
from hellm_recbole.report.slices import build_slices, render_slices
from hellm_recbole.report.tables import Table, build_table
from hellm_recbole.report.terminal import render_terminal
from hellm_recbole.system.files import ensure_folder, write_text

STEMS: dict[Protocol, str] = {"unified": "table", "paper": "table-paper"}  # file names of the tables without endings


def write_reports(
    results_dir: Path,
    dataset: str,
    protocol: Protocol,
    *,
    metric: str | None = None,
    cutoffs: Sequence[int] | None = None,
    page: bool = False,
    ledger: bool = False,
    costs: bool = False,
    output: Path | None = None,
) -> str:
    """Write the files listed at the top of this module into a folder of the dataset's name. Each run is read once.

    Args:
        results_dir: folder that contains `<dataset>/<model>/<seed>/record.json`.
        dataset: name of the dataset.
        protocol: protocol of the table to return.
        metric: metric that orders the rows inside a group; None takes the one in `properties/report.yaml`.
        cutoffs: cut-offs K of tables, slices and page; None takes those of the runs.
        page: whether to write the page.
        ledger: whether to write the ledger; the page has it in any case if there are published numbers of the dataset.
        costs: whether to write the table of costs, and its figure if the page is written.
        output: folder that gets the folder of the report; None takes `results_dir`.

    Returns:
        The table, the tables of ablation and audit if there are any, and the ledger if it is written, as text for the
        terminal.

    Raises:
        ResultError: there are no run results, one is broken, or the runs cannot be compared in one table.
        SettingsError: `metric` is neither R@K nor N@K.
        OutputError: a file cannot be written.
    """
    everything, settings = read_frame(results_dir, dataset), read_report_settings()
    frame = everything.drop_variants()
    protocols = [name for name in get_args(Protocol) if name == "unified" or frame.paper or protocol == "paper"]
    tables = {name: build_table(frame, name, settings, metric=metric, cutoffs=cutoffs) for name in protocols}
    ablation, folder = build_ablation(everything, settings), ensure_folder((output or results_dir) / dataset)
    _write_tables(folder, tables)
    slices = build_slices(frame, settings, cutoffs=cutoffs)
    write_text(folder / "slices.csv", render_slices(slices, frame.choose_cutoffs(cutoffs)))
    if ablation is not None:
        _write_ablation(folder, ablation)
    if (audit := build_audit(everything, settings, cutoffs=cutoffs)) is not None:
        _write_audit(folder, audit)
    with_ledger = ledger or (page and has_references(everything))
    numbers = build_ledger(everything, settings, metric=metric) if with_ledger else None
    spent = _write_costs(folder, frame, tables["unified"], metric or settings.sort_metric) if costs else None
    if page:
        whole = ablation if cutoffs is None else build_ablation(everything, settings, cutoffs=cutoffs)
        found = {"ablation": whole, "audit": audit, "costs": spent, "ledger": numbers}
        _write_page(folder, frame, tables, settings, find_searches(results_dir, dataset), cutoffs, found)
    shown = [render_terminal(tables[protocol]), *([] if ablation is None else [render_ablation_terminal(ablation)])]
    shown += [] if audit is None else [render_audit_terminal(audit)]
    shown += [] if spent is None else [render_costs_terminal(spent)]
    if ledger and numbers is not None:
        shown.append(_write_ledger(folder, numbers))
    return "\n".join(shown)


def _write_page(
    folder: Path,
    frame: ReportFrame,
    tables: Mapping[Protocol, Table],
    settings: ReportSettings,
    searches: Sequence[SearchResult],
    cutoffs: Sequence[int] | None,
    found: Mapping[str, Any],
) -> None:
    """Write the page and its figures.

    Args:
        folder: folder of the report.
        frame: runs of the tables.
        tables: protocol -> table.
        settings: settings of the report.
        searches: hyper-parameter searches of the dataset.
        cutoffs: cut-offs K; None takes those of the runs.
        found: further tables, as the fields of `PageContent`.
    """
    # matplotlib and jinja2 take long to import, and run.py does not need them.
    from hellm_recbole.report.page import PageContent, write_page

    content = PageContent(
        table=tables["unified"],
        paper_table=tables.get("paper") if frame.paper else None,
        searches=searches,
        cutoffs=frame.choose_cutoffs(cutoffs),
        **found,
    )
    write_page(folder, frame, content, settings)


def _write_tables(folder: Path, tables: Mapping[Protocol, Table]) -> None:
    """Write the table of each protocol as Markdown, CSV and LaTeX."""
    for protocol, table in tables.items():
        for ending, render in (("md", render_markdown), ("csv", render_csv), ("tex", render_latex)):
            write_text(folder / f"{STEMS[protocol]}.{ending}", render(table))


def _write_ablation(folder: Path, ablation: Ablation) -> None:
    """Write an ablation table as Markdown and CSV."""
    for ending, render in (("md", render_ablation_markdown), ("csv", render_ablation_csv)):
        write_text(folder / f"ablation.{ending}", render(ablation))


def _write_audit(folder: Path, audit: Audit) -> None:
    """Write an audit table as Markdown, CSV and LaTeX."""
    for ending, render in (("md", render_audit_markdown), ("csv", render_audit_csv), ("tex", render_audit_latex)):
        write_text(folder / f"audit.{ending}", render(audit))


def _write_costs(folder: Path, frame: ReportFrame, table: Table, metric: str) -> CostTable | None:
    """Write the costs of the rows of a table as Markdown, CSV and LaTeX; None if no row has finished."""
    rows = find_finished_rows(table, frame)
    if not rows:
        return None
    costs = build_cost_table(frame, rows, read_cost_settings(), metric)
    for ending, render in (("md", render_costs_markdown), ("csv", render_costs_csv), ("tex", render_costs_latex)):
        write_text(folder / f"costs.{ending}", render(costs))
    return costs


def _write_ledger(folder: Path, ledger: Ledger) -> str:
    """Write a ledger as Markdown and CSV, and its claims as CSV; return it as text for the terminal."""
    write_text(folder / "ledger.md", render_ledger_markdown(ledger))
    write_text(folder / "ledger.csv", render_ledger_csv(ledger))
    write_text(folder / "claims.csv", render_claims_csv(ledger))
    return render_ledger_terminal(ledger)
