"""The figure of accuracy against the costs of ranking, memory of the row, and estimated energy."""

from __future__ import annotations

from collections.abc import Callable

from hellm_recbole.report import figures
from hellm_recbole.report.cost_table import CostRow, CostTable
from hellm_recbole.report.figures import Chart, Panel, Series
from hellm_recbole.report.named_figure import NamedFigure

_MEASURES: dict[str, tuple[str, Callable[[CostRow], float | None]]] = {
    "ranking time": ("all targets of a part (s)", lambda row: row.rank_seconds),
    "row memory": ("memory of the row (GiB)", lambda row: None if row.row_bytes is None else row.row_bytes / 2**30),
    "energy": ("energy, estimated (Wh)", lambda row: row.energy_wh),
}


def draw_cost_figures(table: CostTable) -> list[NamedFigure]:
    """Draw accuracy against each cost that at least one row has; rows that lack it are left out of the panel.

    Args:
        table: table of costs.
    """
    panels = []
    for title, (label, measure) in _MEASURES.items():
        known = [(row, cost) for row in table.rows if (cost := measure(row)) is not None]
        series = [Series(row.name, row.index, [cost], [row.accuracy], row.family, row.shade) for row, cost in known]
        if series:
            log_x = figures.spans_decades([cost for _, cost in known])
            panels.append(Panel(f"against {title}", label, f"{table.metric}, test", series, log_x=log_x))
    if not panels:
        return []
    caption = (
        "Up and left is better; the grey line joins the rows that no other row beats on both. Energy is estimated from "
        "device hours, not measured."
    )
    return [NamedFigure("costs", "Accuracy against ranking time, memory and energy", caption, Chart(panels, "scatter"))]
