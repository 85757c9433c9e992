"""Columns of a table that are there on request: MRR, hit rate and MAP, computed from the saved ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hellm_recbole.config.comparison import DEFAULT, Comparison
from hellm_recbole.config.metric_names import OPTION, MetricName
from hellm_recbole.errors import SettingsError
from hellm_recbole.plugins.metrics import is_plugin_metric
from hellm_recbole.report.cells import Cell
from hellm_recbole.report.comparisons import describe_correction


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


def add_cells(cells: Mapping[int, Mapping[str, Cell]], further: Sequence[Columns]) -> dict[int, dict[str, Cell]]:
    """Add the cells of further columns to those of the finished rows: index of a group -> metric -> cell."""
    added = {index: dict(row) for index, row in cells.items()}
    for columns in further:
        for index, row in columns.cells.items():
            added[index].update(row)
    return added


def describe_columns(names: Sequence[str], n_rows: int, comparison: Comparison = DEFAULT) -> tuple[str, ...]:
    """Say how the p-values of some columns are corrected; nothing where there are none.

    >>> describe_columns(["MRR", "HR@10"], 3)
    ('The p-values of MRR, HR@10 are Holm-corrected over the 4 comparisons of these columns alone.',)
    """
    n_tests = (n_rows - 1) * len(names)
    if n_tests < 1:
        return ()
    columns = "this column" if len(names) == 1 else "these columns"
    return (f"The p-values of {', '.join(names)} are {describe_correction(comparison, n_tests)} of {columns} alone.",)
