"""The page of a dataset: one HTML file with tables, figures and comparisons.

The page opens without a network, because it contains its figures. They are also written as SVG and PNG files into a
folder next to the page. Jinja escapes every value that comes from a run result.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from hellm_recbole import __version__
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.report.ablation import Ablation
from hellm_recbole.report.audit import Audit
from hellm_recbole.report.cost_figures import draw_cost_figures
from hellm_recbole.report.cost_table import CostTable
from hellm_recbole.report.figures import write_figure
from hellm_recbole.report.finished_rows import find_finished_rows
from hellm_recbole.report.frame import ReportFrame
from hellm_recbole.report.ledger import Ledger
from hellm_recbole.report.ledger_rendering import describe_claims
from hellm_recbole.report.named_figure import NamedFigure
from hellm_recbole.report.page_figures import FIGURES, draw_page_figures
from hellm_recbole.report.pairs import compare_pairs
from hellm_recbole.report.protocols import FAMILY_TITLES
from hellm_recbole.report.settings import ReportSettings
from hellm_recbole.report.tables import Table
from hellm_recbole.system.files import write_text

PAGE_FILE = "report.html"
MASKED: dict[Policy, str] = {
    "seen": "what a user had before is masked, for every row",
    "train": "what a user had in training is masked, for every row",
    "none": "nothing is masked, for any row",
}
TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class PageContent:
    """What the page of a dataset shows, besides its figures.

    Attributes:
        table: table of the protocol `unified`.
        paper_table: table of the protocol `paper`; None if the paper does not have the dataset.
        ablation: ablation table; None if no variant has finished.
        searches: finished hyper-parameter searches.
        cutoffs: cut-offs K, ascending.
        ledger: published numbers beside those of the runs; None if no source has the dataset.
        audit: rows with changed features; None if none has finished.
        costs: costs of the rows, which get a figure; None if they were not asked for.
    """

    table: Table
    paper_table: Table | None
    ablation: Ablation | None
    searches: Sequence[SearchResult]
    cutoffs: tuple[int, ...]
    ledger: Ledger | None
    audit: Audit | None = None
    costs: CostTable | None = None


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page.

    Attributes:
        title: text above the figure.
        caption: text below it.
        source: the SVG file as a data URL.
    """

    title: str
    caption: str
    source: str


def write_page(folder: Path, frame: ReportFrame, content: PageContent, settings: ReportSettings) -> None:
    """Write `report.html` and the folder `figures/`.

    Args:
        folder: folder of the dataset.
        frame: runs of the table.
        content: tables, ablation and searches.
        settings: settings of the report.

    Raises:
        OutputError: a file cannot be written.
    """
    rows = find_finished_rows(content.table, frame)
    drawn = draw_page_figures(frame, rows, content.ablation, content.searches, content.cutoffs, settings, content.audit)
    if content.costs is not None:
        drawn += draw_cost_figures(content.costs)
    figures = [_write_page_figure(folder / FIGURES, figure) for figure in drawn]
    pairs = compare_pairs(frame, rows, content.cutoffs, settings)
    write_text(folder / PAGE_FILE, render_page(frame.records, content, figures, pairs))


def _write_page_figure(folder: Path, drawn: NamedFigure) -> PageFigure:
    """Write a figure into its folder and return it for the page."""
    path = write_figure(folder, drawn.name, drawn.figure)
    source = base64.b64encode(path.read_bytes()).decode("ascii")
    return PageFigure(drawn.title, drawn.caption, f"data:image/svg+xml;base64,{source}")


def render_page(
    records: Sequence[RunResult], content: PageContent, figures: Sequence[PageFigure], pairs: Mapping[str, Any]
) -> str:
    """Render the page as HTML.

    Args:
        records: run results of the table.
        content: tables and ablation.
        figures: figures in the order of the page.
        pairs: comparison of every two rows, from `compare_pairs`.
    """
    return _load_template().render(
        dataset=records[0].dataset,
        version=__version__,
        protocol=_describe_protocol(records),
        table=content.table,
        families=FAMILY_TITLES,
        paper_table=content.paper_table,
        figures=figures,
        ablation=() if content.ablation is None else content.ablation.rows,
        pairs=pairs,
        ledger=content.ledger,
        claims=() if content.ledger is None else describe_claims(content.ledger),
    )


def _load_template() -> jinja2.Template:
    """Load the template of the page; it escapes all values and refuses undefined ones."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hellm_recbole.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(TEMPLATE)


def _describe_protocol(records: Sequence[RunResult]) -> list[tuple[str, str]]:
    """List names and values of the section "Protocol": data, split and evaluation, which are the same for all rows."""
    first = records[0]
    counts = first.counts
    k_core = f"{first.filter['k_core']}-core, {first.filter['dropped']:,} interactions dropped"
    searches = sorted({record.search["budget"] for record in records if record.search is not None})
    return [
        ("Data", f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions"),
        ("Filter", k_core if first.filter["k_core"] else "none"),
        (
            "Split",
            f"{first.split_kind}: {counts['train']:,} train, {counts['valid']:,} validation, {counts['test']:,} test",
        ),
        ("Split hash", first.split_hash),
        ("Candidates", f"all {first.n_candidates:,} items"),
        ("Mask policy", f"{first.mask_history}: {MASKED[first.mask_history]}"),
        ("K", ", ".join(map(str, first.cutoffs))),
        ("Seeds", ", ".join(map(str, sorted({record.seed for record in records})))),
        ("Presets", ", ".join(sorted({record.preset for record in records}))),
        ("Search budget", ", ".join(searches) if searches else "no row was searched"),
        ("Modalities", ", ".join(sorted({name for record in records for name in record.modalities})) or "none"),
    ]
