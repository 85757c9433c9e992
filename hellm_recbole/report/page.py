"""The page of a dataset: one HTML file with tables, figures and comparisons.

The page opens without a network, because it contains its figures, style sheet and script. The figures can also be
written as SVG, PDF and PNG files into a folder next to the page. Jinja escapes every value that comes from a run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from hellm_recbole import __version__
from hellm_recbole.experiments.external_lists import has_unknown_seed
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.report.ablation import Ablation
from hellm_recbole.report.audit import Audit
from hellm_recbole.report.cost_figures import draw_cost_figures
from hellm_recbole.report.cost_table import CostTable
from hellm_recbole.report.figure_styles import list_dark_colours
from hellm_recbole.report.figures import write_figure
from hellm_recbole.report.finished_rows import find_finished_rows
from hellm_recbole.report.frame import ReportFrame
from hellm_recbole.report.ledger import Ledger
from hellm_recbole.report.ledger_rendering import describe_claims
from hellm_recbole.report.named_figure import NamedFigure
from hellm_recbole.report.page_figures import FIGURES, draw_page_figures
from hellm_recbole.report.page_svg import draw_sample, embed_figure, name_colour
from hellm_recbole.report.pairs import compare_pairs
from hellm_recbole.report.protocols import FAMILY_TITLES
from hellm_recbole.report.settings import PAGE_FILE, ReportSettings
from hellm_recbole.report.tables import Table
from hellm_recbole.report.timing_rendering import COLUMNS, list_timing_lines
from hellm_recbole.report.timing_table import TimingTable
from hellm_recbole.system.files import write_text

MASKED: dict[Policy, str] = {
    "seen": "what a user had before is masked, for every row",
    "train": "what a user had in training is masked, for every row",
    "none": "nothing is masked, for any row",
}
TEMPLATE = "page.html.jinja"
_UNBROKEN = 20  # characters of a name that always stands on one line


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
        timings: times of the rows; None if they were not asked for.
    """

    table: Table
    paper_table: Table | None
    ablation: Ablation | None
    searches: Sequence[SearchResult]
    cutoffs: tuple[int, ...]
    ledger: Ledger | None
    audit: Audit | None = None
    costs: CostTable | None = None
    timings: TimingTable | None = None


@dataclass(frozen=True)
class LegendEntry:
    """A name in the legend of a figure.

    Attributes:
        key: key of its lines and points, the same for a row in all figures.
        name: name of the row or series.
        sample: its line with its marker.
    """

    key: str
    name: str
    sample: Markup


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page.

    Attributes:
        title: text above the figure.
        caption: text below its title.
        panels: its panels as SVG, or the whole figure.
        legend: title of a family, or "" for series that are no rows, and its entries; empty for a whole figure, which
            has its own legend.
    """

    title: str
    caption: str
    panels: Sequence[Markup]
    legend: Sequence[tuple[str, Sequence[LegendEntry]]]


def write_page(
    folder: Path,
    frame: ReportFrame,
    content: PageContent,
    settings: ReportSettings,
    stamp: str = "",
    *,
    with_files: bool = True,
) -> None:
    """Write `report.html` and the folder `figures/`.

    Args:
        folder: folder of the dataset.
        frame: runs of the table.
        content: tables, ablation and searches.
        settings: settings of the report.
        stamp: last line of the page, which names what it was made of.
        with_files: whether to write the figures as files, too, which takes longer than all the rest of the page.

    Raises:
        OutputError: a file cannot be written.
    """
    rows = find_finished_rows(content.table, frame)
    drawn = draw_page_figures(frame, rows, content.ablation, content.searches, content.cutoffs, settings, content.audit)
    if content.costs is not None:
        drawn += draw_cost_figures(content.costs)
    if with_files:
        for figure in drawn:
            write_figure(folder / FIGURES, figure.name, figure.figure)
    keys = {(row.runs[0].label, row.runs[0].preset): _name_row_key(row.index) for row in rows}
    pairs = compare_pairs(frame, rows, content.cutoffs, settings)
    page = _load_template().render(
        dataset=frame.records[0].dataset,
        version=__version__,
        protocol=_describe_protocol(frame.records),
        table=content.table,
        keys=keys,
        families=FAMILY_TITLES,
        paper_table=content.paper_table,
        figures=[_embed_page_figure(figure) for figure in drawn],
        ablation=content.ablation,
        pairs=pairs,
        ledger=content.ledger,
        claims=() if content.ledger is None else describe_claims(content.ledger),
        timings=content.timings,
        timing_lines=() if content.timings is None else list_timing_lines(content.timings),
        timing_columns=COLUMNS,
        confidence=f"{settings.confidence_level:.0%}",
        colours=list_dark_colours(),
    )
    write_text(folder / PAGE_FILE, page if stamp == "" else f"{page.rstrip()}\n{stamp}")


def _name_row_key(index: int) -> str:
    """Name the key that a row of the table has in the table and in all figures."""
    return f"row-{index}"


def _embed_page_figure(drawn: NamedFigure) -> PageFigure:
    """Embed a figure: panel by panel with a legend of the page, or as a whole."""
    if isinstance(drawn.content, Figure):
        whole = embed_figure(drawn.content, drawn.name, drawn.title, {})
        return PageFigure(drawn.title, drawn.caption, [whole], [])
    keys: dict[str, str] = {}
    groups: dict[str, list[LegendEntry]] = {}
    for n, (name, series) in enumerate(drawn.content.list_names().items()):
        # The names of a search, such as "ended", mean something else in each figure; a row is the same in all.
        key = f"{drawn.name}-{n}" if series.family is None else _name_row_key(series.index)
        sample = draw_sample(series.style, with_line=drawn.content.kind != "scatter")
        keys[f"series-{n}"] = key
        title = FAMILY_TITLES[series.family] if series.family in FAMILY_TITLES else ""
        groups.setdefault(title, []).append(LegendEntry(key, name, sample))
    panels = [
        embed_figure(figure, f"{drawn.name}-{n}", f"{drawn.title}, {panel.title}", keys)
        for n, (panel, figure) in enumerate(zip(drawn.content.panels, drawn.content.draw_panels(), strict=True))
    ]
    return PageFigure(drawn.title, drawn.caption, panels, list(groups.items()))


def _load_template() -> jinja2.Template:
    """Load the template of the page; it escapes all values and refuses undefined ones."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hellm_recbole.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"breakable": _make_breakable, "name_colour": name_colour}
    return environment.get_template(TEMPLATE)


def _make_breakable(name: str) -> Markup:
    """Escape a name; a long one may be broken into lines after a comma or a hyphen, and before "@".

    >>> _make_breakable("SASRec-text"), _make_breakable("Fusion(SASRec-text,<b>)@gemma")
    (Markup('SASRec-text'), Markup('Fusion(SASRec-<wbr>text,<wbr>&lt;b&gt;)<wbr>@gemma'))
    """
    if len(name) <= _UNBROKEN:
        return escape(name)
    return Markup("<wbr>").join(re.split(r"(?<=[,-])|(?=@)", name))


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
        (
            "Seeds",
            ", ".join(map(str, sorted({r.seed for r in records if not has_unknown_seed(r.external)}))) or "unknown",
        ),
        ("Presets", ", ".join(sorted({record.preset for record in records}))),
        ("Search budget", ", ".join(searches) if searches else "no row was searched"),
        ("Modalities", ", ".join(sorted({name for record in records for name in record.modalities})) or "none"),
    ]
