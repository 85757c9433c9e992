"""The published runs of a folder, read once with the report's own functions, for the board and the methods' pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hellm_recbole.benchmarks.tasks.reporting import list_reported_datasets
from hellm_recbole.config.row_names import parse_combined_name
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.report.cells import Cell
from hellm_recbole.report.frame import ReportFrame, read_frame
from hellm_recbole.report.settings import read_report_settings
from hellm_recbole.report.tables import Row, Table, build_table


@dataclass(frozen=True)
class PublishedDataset:
    """The published runs of one dataset.

    Attributes:
        name: name of the dataset.
        frame: the runs.
        table: their table, protocol unified.
    """

    name: str
    frame: ReportFrame
    table: Table

    def get_row(self, run: RunResult) -> Row:
        """Return the row of the table to which a run belongs."""
        return next(row for row in self.table.rows if (row.model, row.preset) == (run.label, run.preset))

    def list_rows_of(self, models: Sequence[str]) -> list[Row]:
        """List the rows of some models or variants, also with other language models; combined rows are left out."""
        labels = {run.label for run in self.frame.records if run.model in models}
        return [row for row in self.table.rows if row.model in labels and row.problem is None]

    def list_combinations(self) -> set[str]:
        """List the labels of combined rows, which train nothing."""
        return {run.label for run in self.frame.records if parse_combined_name(run.model) is not None}


@cache
def read_published(folder: Path) -> tuple[PublishedDataset, ...]:
    """Read the published runs of all datasets.

    Args:
        folder: folder that contains `<dataset>/<model>/<seed>/record.json`.

    Raises:
        ResultError: there are no runs, or they cannot be compared in one table.
    """
    settings, read = read_report_settings(), []
    for name in list_reported_datasets(folder):
        frame = read_frame(folder, name)
        read.append(PublishedDataset(name, frame, build_table(frame, "unified", settings)))
    return tuple(read)


def format_mean(cell: Cell) -> str:
    """Write a mean, with its deviation over seeds if there are several."""
    return f"{cell.mean:.4f}" if cell.sd is None else f"{cell.mean:.4f} ± {cell.sd:.4f}"
