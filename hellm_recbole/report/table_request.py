"""What the tables of a report show, and how, as a command asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hellm_recbole.config.comparison import Comparison
from hellm_recbole.config.metric_names import MetricName
from hellm_recbole.experiments.ranks_file import Policy


@dataclass(frozen=True)
class TableRequest:
    """What the tables of a report show, and how.

    Attributes:
        mask: masking policy of all rows of the printed table; None takes those of the protocol.
        metric: metric that orders the rows of a group; None takes the one in `properties/report.yaml`.
        cutoffs: cut-offs K of tables, slices and page; None takes those of the runs.
        comparison: how the rows are compared; None is the default, without effect sizes in the CSV file.
        ids: whether the printed table and the Markdown and LaTeX files have the ids of the rows.
        metrics: further metrics, which become columns; those of test lists read the prepared dataset in `dataset/`.
    """

    mask: Policy | None = None
    metric: str | None = None
    cutoffs: Sequence[int] | None = None
    comparison: Comparison | None = None
    ids: bool = False
    metrics: Sequence[MetricName] = ()


DEFAULT_TABLES = TableRequest()
