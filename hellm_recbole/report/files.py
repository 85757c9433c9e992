"""The files of a report, made from one reading of a dataset's runs.

- `table.{md,csv,tex}` is the table of the protocol `unified`. `table-paper.{md,csv,tex}` is the table of the protocol
  `paper`. It is written if the paper has the dataset or if this protocol is requested.
- `table-mask-<policy>.{md,csv,tex}` is the table under another masking policy. It is written if it is requested, and so
  is the ablation table under this policy, `ablation-mask-<policy>.{md,csv}`.
- `slices.csv` has the metrics of parts of the test targets.
- `ablation.{md,csv,tex}` compares variants with their models, at the cut-offs of the runs. It is written if a variant
  has finished.
- `audit.{md,csv,tex}` compares rows with changed features with their models. It is written if such a row has finished.
- `costs.{md,csv,tex}` has the costs of the rows, and `timings.{md,csv}` where the time of all runs went. They are
  written if they are requested.
- `ledger.{md,csv}` has published numbers beside those of the runs, and `claims.csv` the verdicts on the claims of the
  paper's text. They are written if they are requested.
- `report.html` is the page. It is written if it is requested, with `figures/` or, after runs, without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from hellm_recbole.config.request import Protocol
from hellm_recbole.data.known_datasets import DATASET_ROOT
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.report.ablation import Ablation, build_ablation
from hellm_recbole.report.ablation_rendering import (
    render_ablation_csv,
    render_ablation_latex,
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
from hellm_recbole.report.further_columns import refuse_plugin_names
from hellm_recbole.report.ledger import Ledger, build_ledger
from hellm_recbole.report.ledger_rendering import (
    render_claims_csv,
    render_ledger_csv,
    render_ledger_markdown,
    render_ledger_terminal,
)
from hellm_recbole.report.list_columns import build_list_columns
from hellm_recbole.report.page_writing import PageInput, try_page, write_dataset_page
from hellm_recbole.report.rendering import name_latex_label, render_csv, render_latex, render_markdown
from hellm_recbole.report.settings import ReportSettings, read_report_settings
from hellm_recbole.report.slices import build_slices, render_slices
from hellm_recbole.report.table_request import DEFAULT_TABLES, TableRequest
from hellm_recbole.report.tables import Table, build_table
from hellm_recbole.report.terminal import render_terminal
from hellm_recbole.report.timing_rendering import render_timings_csv, render_timings_markdown, render_timings_terminal
from hellm_recbole.report.timing_table import TimingTable, build_timing_table
from hellm_recbole.system.files import ensure_folder, write_text

STEMS: dict[Protocol, str] = {"unified": "table", "paper": "table-paper"}  # file names of the tables without endings


def write_reports(
    results_dir: Path,
    dataset: str,
    protocol: Protocol,
    wanted: TableRequest = DEFAULT_TABLES,
    *,
    page: bool = False,
    quick_page: bool = False,
    ledger: bool = False,
    costs: bool = False,
    timings: bool = False,
    output: Path | None = None,
) -> str:
    """Write the files listed at the top of this module into a folder of the dataset's name. Each run is read once.

    Args:
        results_dir: folder that contains `<dataset>/<model>/<seed>/record.json`.
        dataset: name of the dataset.
        protocol: protocol of the table to return.
        wanted: what the tables show, and how.
        page: whether to write the page and its figures.
        quick_page: whether to write the page without files of its figures. If it cannot be made, the text that is
            returned says why, and nothing else is lost.
        ledger: whether to write the ledger; the page has it in any case if there are published numbers of the dataset.
        costs: whether to write the table of costs, and its figure if the page is written.
        timings: whether to write the table of times.
        output: folder that gets the folder of the report; None takes `results_dir`.

    Returns:
        The table, those of ablation and audit if there are any, costs, times and ledger if they are written, and the
        problem of a quick page, as text for the terminal.

    Raises:
        HellmError: the runs cannot be compared in one table, an argument names nothing, test lists do not belong to
            the prepared dataset, or a file cannot be written.
    """
    everything, settings, metric = read_frame(results_dir, dataset), read_report_settings(), wanted.metric
    frame, folder = everything.drop_variants(), ensure_folder((output or results_dir) / dataset)
    tables, masked = _build_tables(frame, protocol, wanted, settings)
    ablation = _write_ablation(folder, build_ablation(everything, settings))
    _write_tables(folder, {STEMS[name]: one for name, one in tables.items()})
    _write_slices(folder, frame, settings, wanted.cutoffs)
    audit = _write_audit(folder, build_audit(everything, settings, cutoffs=wanted.cutoffs))
    spent = _write_costs(folder, frame, tables["unified"], metric or settings.sort_metric) if costs else None
    took = _write_timings(folder, build_timing_table(everything.groups)) if timings else None
    numbers = build_ledger(everything, settings, metric=metric) if ledger else None
    content = (settings, tables, ablation, numbers, metric, wanted.cutoffs, audit, spent, took)
    source = PageInput(results_dir, everything, frame, *content)
    if page:
        write_dataset_page(folder, source)
    table = tables[protocol]
    if masked is not None and wanted.mask is not None:
        asked = build_ablation(replace(everything, mask=wanted.mask), settings)
        table, ablation = _write_masked(folder, masked, asked, wanted.mask)
    shown = [render_terminal(table), *_render_further(ablation, audit, spent, took)]
    if ledger and numbers is not None:
        shown.append(_write_ledger(folder, numbers))
    if quick_page and (problem := try_page(folder, source)) is not None:
        shown.append(problem)
    return "\n".join(shown)


def _render_further(
    ablation: Ablation | None, audit: Audit | None, costs: CostTable | None, timings: TimingTable | None
) -> list[str]:
    """Render the further tables that there are, as text for the terminal."""
    shown = [] if ablation is None else [render_ablation_terminal(ablation)]
    shown += [] if audit is None else [render_audit_terminal(audit)]
    shown += [] if costs is None else [render_costs_terminal(costs)]
    return shown + ([] if timings is None else [render_timings_terminal(timings)])


def _build_tables(
    frame: ReportFrame, protocol: Protocol, wanted: TableRequest, settings: ReportSettings
) -> tuple[dict[Protocol, Table], Table | None]:
    """Build the table of each protocol, and the one under the masking policy that was asked for, or None."""
    refuse_plugin_names(wanted.metrics)
    of_lists = [name for name in wanted.metrics if name.reads_lists]
    build = partial(
        build_table,
        settings=settings,
        metric=wanted.metric,
        cutoffs=wanted.cutoffs,
        comparison=wanted.comparison,
        rank_metrics=[name for name in wanted.metrics if not name.reads_lists],
        list_columns=build_list_columns(frame, of_lists, settings, DATASET_ROOT),
    )
    tables = {name: replace(build(frame, name), shows_ids=wanted.ids) for name in _list_protocols(frame, protocol)}
    if wanted.mask is None:
        return tables, None
    return tables, replace(build(replace(frame, mask=wanted.mask), "unified"), shows_ids=wanted.ids)


def _list_protocols(frame: ReportFrame, requested: Protocol) -> list[Protocol]:
    """List the protocols of the tables: `paper` only if the paper has the dataset, or if it is requested."""
    return [name for name in get_args(Protocol) if name == "unified" or frame.paper or name == requested]


def _write_slices(folder: Path, frame: ReportFrame, settings: ReportSettings, cutoffs: Sequence[int] | None) -> None:
    """Write the metrics of parts of the test targets."""
    slices = build_slices(frame, settings, cutoffs=cutoffs)
    write_text(folder / "slices.csv", render_slices(slices, frame.choose_cutoffs(cutoffs)))


def _write_masked(folder: Path, table: Table, ablation: Ablation | None, mask: Policy) -> tuple[Table, Ablation | None]:
    """Write and return the tables under a masking policy that was asked for."""
    _write_tables(folder, {f"{STEMS['unified']}-mask-{mask}": table})
    _write_ablation(folder, ablation, f"ablation-mask-{mask}")
    return table, ablation


def _write_tables(folder: Path, tables: Mapping[str, Table]) -> None:
    """Write tables as Markdown, CSV and LaTeX; `tables` maps the name of the files without ending to the table."""
    for stem, table in tables.items():
        for ending, render in (("md", render_markdown), ("csv", render_csv)):
            write_text(folder / f"{stem}.{ending}", render(table))
        write_text(folder / f"{stem}.tex", render_latex(table, name_latex_label(folder.name, stem)))


def _write_ablation(folder: Path, ablation: Ablation | None, stem: str = "ablation") -> Ablation | None:
    """Write an ablation table as Markdown, CSV and LaTeX, if there is one, and return it."""
    if ablation is None:
        return None
    for ending, render in (("md", render_ablation_markdown), ("csv", render_ablation_csv)):
        write_text(folder / f"{stem}.{ending}", render(ablation))
    write_text(folder / f"{stem}.tex", render_ablation_latex(ablation, name_latex_label(folder.name, stem)))
    return ablation


def _write_audit(folder: Path, audit: Audit | None) -> Audit | None:
    """Write an audit table as Markdown, CSV and LaTeX, if there is one, and return it."""
    if audit is None:
        return None
    for ending, render in (("md", render_audit_markdown), ("csv", render_audit_csv), ("tex", render_audit_latex)):
        write_text(folder / f"audit.{ending}", render(audit))
    return audit


def _write_costs(folder: Path, frame: ReportFrame, table: Table, metric: str) -> CostTable | None:
    """Write the costs of the rows of a table as Markdown, CSV and LaTeX; None if no row has finished."""
    rows = find_finished_rows(table, frame)
    if not rows:
        return None
    costs = build_cost_table(frame, rows, read_cost_settings(), metric)
    for ending, render in (("md", render_costs_markdown), ("csv", render_costs_csv), ("tex", render_costs_latex)):
        write_text(folder / f"costs.{ending}", render(costs))
    return costs


def _write_timings(folder: Path, table: TimingTable | None) -> TimingTable | None:
    """Write a table of times as Markdown and CSV, if there is one, and return it."""
    if table is not None:
        write_text(folder / "timings.md", render_timings_markdown(table))
        write_text(folder / "timings.csv", render_timings_csv(table))
    return table


def _write_ledger(folder: Path, ledger: Ledger) -> str:
    """Write a ledger as Markdown and CSV, and its claims as CSV; return it as text for the terminal."""
    write_text(folder / "ledger.md", render_ledger_markdown(ledger))
    write_text(folder / "ledger.csv", render_ledger_csv(ledger))
    write_text(folder / "claims.csv", render_claims_csv(ledger))
    return render_ledger_terminal(ledger)
