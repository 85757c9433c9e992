"""Finished rows: the rows of a table that have a successful run, for the page's figures and comparisons."""

from __future__ import annotations

from dataclasses import dataclass

from hellm_recbole.models.base import Family
from hellm_recbole.report.frame import ReportFrame
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.tables import Table


@dataclass(frozen=True)
class FinishedRow:
    """A row of the table that has a successful run.

    Attributes:
        name: label of the model, with the preset if rows have different ones.
        index: number of the row among the finished rows, from 0.
        runs: results of its successful runs, one for each seed.
        family: group of the table to which the row belongs.
        shade: number of the row among the finished rows of its family, from 0.
    """

    name: str
    index: int
    runs: Group
    family: Family
    shade: int


def find_finished_rows(table: Table, frame: ReportFrame) -> list[FinishedRow]:
    """Find the rows of the table that have a successful run, in the order of the table."""
    groups = {(group[0].label, group[0].preset): group for group in frame.groups}
    rows: list[FinishedRow] = []
    for row in table.rows:
        successful = list_successful(groups[row.model, row.preset])
        if successful:
            name = f"{row.model} ({row.preset})" if table.several_presets else row.model
            shade = sum(other.family == row.family for other in rows)
            rows.append(FinishedRow(name, len(rows), successful, row.family, shade))
    return rows
