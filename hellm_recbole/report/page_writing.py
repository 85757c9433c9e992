"""Write the page of a dataset from what its tables were made of: with its figures as files, or quickly after runs.

This module loads matplotlib and Jinja only where a page is written, because both take long to import.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hellm_recbole import __version__
from hellm_recbole.config.request import Protocol
from hellm_recbole.errors import HellmError, strip_controls
from hellm_recbole.experiments.results import RECORD_FILE
from hellm_recbole.experiments.sweeps import find_searches
from hellm_recbole.report.ablation import Ablation, build_ablation
from hellm_recbole.report.audit import Audit
from hellm_recbole.report.cost_table import CostTable
from hellm_recbole.report.frame import ReportFrame
from hellm_recbole.report.ledger import Ledger, build_ledger, has_references
from hellm_recbole.report.settings import PAGE_FILE, ReportSettings
from hellm_recbole.report.tables import Table
from hellm_recbole.report.timing_table import TimingTable
from hellm_recbole.system.files import sha256_file


@dataclass(frozen=True)
class PageInput:
    """What the page of a dataset is made of.

    Attributes:
        results_dir: folder of the results.
        everything: all runs of the dataset.
        frame: runs of the table, without variants.
        settings: settings of the report.
        tables: tables of the protocols.
        ablation: ablation table at the cut-offs of the runs; None if no variant has finished.
        ledger: published numbers beside those of the runs; None if they have not been computed yet.
        metric: metric that orders the rows inside a group; None takes the one of the settings.
        cutoffs: cut-offs K; None takes those of the runs.
        audit: audit table; None if no row with changed features has finished.
        costs: costs of the rows; None if they were not requested.
        timings: times of the rows; None if they were not requested.
    """

    results_dir: Path
    everything: ReportFrame
    frame: ReportFrame
    settings: ReportSettings
    tables: Mapping[Protocol, Table]
    ablation: Ablation | None
    ledger: Ledger | None
    metric: str | None
    cutoffs: Sequence[int] | None
    audit: Audit | None = None
    costs: CostTable | None = None
    timings: TimingTable | None = None


def is_page_current(folder: Path) -> bool:
    """Return whether there is a page that this version has made of the records that are there now.

    Args:
        folder: folder of the dataset, with its runs.
    """
    try:
        text = (folder / PAGE_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return text.endswith(_write_stamp(folder))


def _write_stamp(folder: Path) -> str:
    """Write the last line of a page: the version, and a digest of the records of all runs of the dataset."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob(f"*/*/{RECORD_FILE}")):
        digest.update(f"{path.relative_to(folder)} {sha256_file(path)}\n".encode())
    return f"<!-- hellm-recbole {__version__}, records {digest.hexdigest()} -->\n"


def write_dataset_page(folder: Path, source: PageInput, *, with_files: bool = True) -> None:
    """Write the page of a dataset into its folder.

    Args:
        folder: folder of the dataset.
        source: what the page is made of.
        with_files: whether to write the figures as files, too.

    Raises:
        OutputError: a file cannot be written.
    """
    from hellm_recbole.report.page import PageContent, write_page

    stamp = _write_stamp(folder)  # of the records that were read, not of those that other commands write meanwhile
    frame, ablation, ledger = source.frame, source.ablation, source.ledger
    if source.cutoffs is not None:
        ablation = build_ablation(source.everything, source.settings, cutoffs=source.cutoffs)
    if ledger is None and has_references(source.everything):
        ledger = build_ledger(source.everything, source.settings, metric=source.metric)
    content = PageContent(
        table=source.tables["unified"],
        paper_table=source.tables.get("paper") if frame.paper else None,
        ablation=ablation,
        searches=find_searches(source.results_dir, frame.records[0].dataset),
        cutoffs=frame.choose_cutoffs(source.cutoffs),
        ledger=ledger,
        audit=source.audit,
        costs=source.costs,
        timings=source.timings,
    )
    write_page(folder, frame, content, source.settings, stamp, with_files=with_files)


def try_page(folder: Path, source: PageInput) -> str | None:
    """Write the page without files of its figures. If that fails, return one sentence about it; otherwise None.

    It follows runs that took hours, and runs on further datasets may follow it, so no error of the page may end them.

    Args:
        folder: folder of the dataset.
        source: what the page is made of.
    """
    try:
        write_dataset_page(folder, source, with_files=False)
    except Exception as error:
        reason = str(error) if isinstance(error, HellmError) else f"{type(error).__name__}: {error}"
        dataset = source.frame.records[0].dataset
        return strip_controls(
            f"The page report.html could not be written ({' '.join(reason.split())}). The tables are complete; "
            f"`hellm-recbole report --dataset {dataset}` tries the page again."
        )
    return None
