"""Columns of a table that are there on request: MRR, hit rate and MAP, computed from the saved ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hellm_recbole.config.metric_names import OPTION, MetricName
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.models.base import Family
from hellm_recbole.plugins.metrics import is_plugin_metric
from hellm_recbole.report.cells import Cell, build_cells
from hellm_recbole.report.frame import ReportFrame
from hellm_recbole.report.groups import list_successful
from hellm_recbole.report.settings import ReportSettings


@dataclass(frozen=True)
class Columns:
    """Columns that are added to a table.

    Attributes:
        names: names of the columns, in order.
        cells: index of a group of the frame -> metric -> cell; a metric without a value has no cell.
        notes: sentences for the caption.
    """

    names: tuple[str, ...]
    cells: Mapping[int, Mapping[str, Cell]]
    notes: tuple[str, ...]


NO_COLUMNS = Columns((), {}, ())


def refuse_plugin_names(names: Sequence[MetricName], option: str = OPTION) -> None:
    """Refuse metrics that have the name of a metric of an installed package, whose columns the table already has.

    Args:
        names: metrics of an option.
        option: name of the option, for the message.

    Raises:
        SettingsError: there is one.
    """
    for name in names:
        if is_plugin_metric(str(name)):
            raise SettingsError(
                f"{option} {name}: an installed package has a metric of this name, which every table shows; leave it "
                "out, or uninstall the package"
            )


def build_rank_columns(
    frame: ReportFrame, policies: Mapping[Family, Policy], names: Sequence[str], settings: ReportSettings
) -> Columns:
    """Build the columns of metrics of ranks. Their p-values are corrected on their own, so that no other one changes.

    Args:
        frame: runs of the table.
        policies: masking policy of each family.
        names: metrics of ranks, see `ReportFrame.compute_per_user`.
        settings: settings of the report.
    """
    columns = tuple(names)
    finished = [index for index, group in enumerate(frame.groups) if list_successful(group)]
    if not columns or not finished:
        return Columns(columns, {}, ())
    per_seed = [
        [
            frame.compute_per_user(record, policies[record.family], columns)
            for record in list_successful(frame.groups[index])
        ]
        for index in finished
    ]
    built = build_cells(per_seed, columns, settings)
    return Columns(columns, dict(zip(finished, built, strict=True)), ())


def add_cells(cells: Mapping[int, Mapping[str, Cell]], further: Sequence[Columns]) -> dict[int, dict[str, Cell]]:
    """Add the cells of further columns to those of the finished rows: index of a group -> metric -> cell."""
    added = {index: dict(row) for index, row in cells.items()}
    for columns in further:
        for index, row in columns.cells.items():
            added[index].update(row)
    return added


def describe_correction(names: Sequence[str], n_rows: int) -> tuple[str, ...]:
    """Say over how many comparisons the p-values of some columns are corrected; nothing where there are none.

    >>> describe_correction(["MRR", "HR@10"], 3)
    ('The p-values of MRR, HR@10 are Holm-corrected over the 4 comparisons of these columns alone.',)
    """
    n_tests = (n_rows - 1) * len(names)
    if n_tests < 1:
        return ()
    only = "comparison" if n_tests == 1 else f"{n_tests} comparisons"
    columns = "this column" if len(names) == 1 else "these columns"
    return (f"The p-values of {', '.join(names)} are Holm-corrected over the {only} of {columns} alone.",)
