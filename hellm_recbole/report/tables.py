"""Comparison tables: one row for each model and preset, with means over seeds, grouped by family.

`build_table` computes the content of a table from the report's frame. `rendering` and `terminal` format it.
`protocols` explains the two protocols of a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hellm_recbole.config.comparison import DEFAULT, Comparison
from hellm_recbole.config.limits import LARGEST_CUTOFF
from hellm_recbole.config.metric_names import RANK_FORMS, MetricName, find_metric_name
from hellm_recbole.config.request import Protocol
from hellm_recbole.errors import SettingsError, shorten
from hellm_recbole.experiments.external_lists import EXTERNAL, has_unknown_seed
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.experiments.results import Search
from hellm_recbole.models.base import Family
from hellm_recbole.report.best_rows import write_distance_notes
from hellm_recbole.report.captions import describe_problem, write_mark_note, write_notes, write_seed_note, write_stamp
from hellm_recbole.report.cells import Cell, Floats, build_cells
from hellm_recbole.report.comparisons import find_chosen_row, name_rows
from hellm_recbole.report.footnotes import Footnote, find_footnotes, list_marks
from hellm_recbole.report.frame import ReportFrame, name_metrics, name_plugin_metrics
from hellm_recbole.report.further_columns import (
    NO_COLUMNS,
    Columns,
    add_cells,
    describe_columns,
    refuse_plugin_names,
)
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.number_ids import identify_number
from hellm_recbole.report.protocols import FAMILY_TITLES, choose_policies
from hellm_recbole.report.settings import ReportSettings


@dataclass(frozen=True)
class Row:
    """One model with one preset.

    Attributes:
        family: group of the table to which the model belongs.
        model: label of the model, with its language model and whether its values were tuned.
        source: package that contains the model.
        preset: name of the preset.
        status: "success" if a seed succeeded, otherwise the status of the last seed.
        problem: reason why no seed succeeded; None if one did.
        seeds: seeds that succeeded; "unknown" for that of an external row that nobody has named.
        cells: metric -> numbers; empty where no seed succeeded.
        paper: metric -> number of the paper's Table 1; empty where it has none.
        train_seconds: training time, mean over seeds.
        host_bytes: peak memory of the process, largest over seeds.
        device_bytes: peak memory of the device, largest over seeds.
        trainable_parameters: number of trained parameters.
        total_parameters: number of all parameters.
        search: hyper-parameter search that chose the settings; None if there was none.
        marks: letters of the row's footnotes.
        number_id: id of the row's numbers, see `number_ids`; None where no seed succeeded.
    """

    family: Family
    model: str
    source: str
    preset: str
    status: str
    problem: str | None
    seeds: tuple[int | str, ...]
    cells: Mapping[str, Cell]
    paper: Mapping[str, float]
    train_seconds: float | None
    host_bytes: float | None
    device_bytes: float | None
    trainable_parameters: int | None
    total_parameters: int | None
    search: Search | None
    marks: tuple[str, ...] = ()
    number_id: str | None = None


@dataclass(frozen=True)
class Table:
    """The content of a table, which each output format prints.

    Attributes:
        protocol: "unified" or "paper", see `protocols`.
        metrics: names of the metric columns, in order.
        paper_metrics: metrics that have a second column with the paper's numbers.
        rows: rows sorted by family, then best first.
        notes: sentences of the caption.
        footnotes: differences between rows other than the model; `Row.marks` refers to them by letter.
        mark_note: sentence that explains the star; None if nothing was compared, so that there is no star.
        split_hash: hash of the data split, which is the same for all rows.
        stamp: warning above the table; None where there is nothing to warn about.
        comparison: how the rows are compared, if the table describes each comparison; None if not.
        shows_ids: whether each output format has a column with the ids of the rows; the CSV file has it in any case.
    """

    protocol: Protocol
    metrics: tuple[str, ...]
    paper_metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    footnotes: tuple[Footnote, ...]
    mark_note: str | None
    split_hash: str
    stamp: str | None
    comparison: Comparison | None = None
    shows_ids: bool = False

    @property
    def searched(self) -> bool:
        """Whether the settings of any row come from a hyper-parameter search."""
        return any(row.search is not None for row in self.rows)

    @property
    def several_presets(self) -> bool:
        """Whether rows have different presets, so that the table needs a column for them."""
        return len({row.preset for row in self.rows if row.family != EXTERNAL}) > 1

    @property
    def on_device(self) -> bool:
        """Whether any row used device memory."""
        return any(row.device_bytes is not None for row in self.rows)


def build_table(
    frame: ReportFrame,
    protocol: Protocol,
    settings: ReportSettings,
    *,
    metric: str | None = None,
    cutoffs: Sequence[int] | None = None,
    comparison: Comparison | None = None,
    rank_metrics: Sequence[MetricName] = (),
    list_columns: Columns = NO_COLUMNS,
) -> Table:
    """Build the table of runs that can be compared with each other.

    Args:
        frame: runs of the table.
        protocol: "unified" or "paper", see `protocols`.
        settings: settings of the report.
        metric: metric that orders the rows inside a group; None takes `settings.sort_metric`.
        cutoffs: cut-offs K; None takes those of the runs.
        comparison: how the rows are compared; None is the default, without effect sizes in the CSV file.
        rank_metrics: further metrics of ranks, such as MRR, which become columns.
        list_columns: columns of metrics of test lists.

    Raises:
        SettingsError: `metric` is not a metric of ranks, or the row to compare with is not in the table.
    """
    cutoffs = frame.choose_cutoffs(cutoffs)
    names, added = name_metrics(cutoffs), name_plugin_metrics(frame, cutoffs)
    sort_metric = _check_metric(settings.sort_metric if metric is None else metric, example=names[-1])
    policies = choose_policies(protocol, frame.mask_policy)
    finished = [index for index, group in enumerate(frame.groups) if list_successful(group)]
    compared = [frame.groups[index] for index in finished]
    against, asked = find_chosen_row(compared, comparison), tuple(map(str, rank_metrics))
    built = _build_cells(frame, compared, policies, (names, added, asked), settings, comparison, against)
    cells = add_cells(dict(zip(finished, built, strict=True)), [list_columns])
    paper = frame.paper if protocol == "paper" else {}
    order = _order_groups(frame, policies, sort_metric)
    footnotes = find_footnotes([frame.groups[index] for index in order], frame.embedding_digests)
    rows = [
        replace(_build_row(frame.groups[index], cells.get(index, {}), paper), marks=list_marks(footnotes, position))
        for position, index in enumerate(order)
    ]
    notes = (
        *write_notes(frame, protocol, policies, cutoffs),
        *write_seed_note([(row.model, len(row.seeds)) for row in rows]),
        *write_distance_notes(frame, policies, sort_metric, settings),
    )
    n_tests, chosen = max(len(finished) - 1, 0) * len(names), None if against is None else name_rows(compared)[against]
    return Table(
        protocol=protocol,
        metrics=(*names, *added, *asked, *list_columns.names),
        paper_metrics=tuple(name for name in names if any(name in numbers for numbers in paper.values())),
        rows=_add_ids(rows, [frame.groups[index] for index in order], policies, cutoffs),
        notes=(*notes, *describe_columns(asked, len(finished), comparison or DEFAULT), *list_columns.notes),
        footnotes=tuple(footnotes),
        mark_note=write_mark_note(settings, n_tests, comparison or DEFAULT, chosen),
        split_hash=frame.records[0].split_hash,
        stamp=write_stamp(frame.records),
        comparison=comparison,
    )


def _build_cells(
    frame: ReportFrame,
    groups: Sequence[Group],
    policies: Mapping[Family, Policy],
    metrics: Sequence[Sequence[str]],
    settings: ReportSettings,
    comparison: Comparison | None,
    against: int | None,
) -> list[dict[str, Cell]]:
    """Build the cells of finished rows: metric -> cell, for each row.

    Args:
        frame: runs of the table.
        groups: runs of each finished row.
        policies: masking policy of each family.
        metrics: sets of metrics. Each has a correction of its own, so that no set changes the p-values of another one.
        settings: settings of the report.
        comparison: how the rows are compared; None is the default.
        against: index of the row that all others are compared with; None for the best other row.
    """
    cells: list[dict[str, Cell]] = [{} for _ in groups]
    for names in filter(None, metrics):
        per_seed = [_compute_per_seed(frame, group, policies, names) for group in groups]
        built = build_cells(per_seed, names, settings, comparison, against, name_rows(groups))
        cells = [{**found, **further} for found, further in zip(cells, built, strict=True)]
    return cells


def _check_metric(metric: str, example: str) -> str:
    """Return a metric, unless rows cannot be ordered by it; `example` is one that they can.

    Raises:
        SettingsError: the metric is not one of ranks, has the name of a metric of an installed package, or its K is too
            large.
    """
    if (name := find_metric_name(metric)) is not None and not name.reads_lists:
        refuse_plugin_names([name], "--metric")
        return metric
    if not re.fullmatch(r"[RN]@[1-9][0-9]{0,6}", metric) or int(metric[2:]) > LARGEST_CUTOFF:
        raise SettingsError(
            f"metric {shorten(metric)!r} is not {RANK_FORMS}, and is neither R@K nor N@K; choose a metric such as "
            f"{example}, with K at most {LARGEST_CUTOFF:,}"
        )
    return metric


def _compute_per_seed(
    frame: ReportFrame, group: Group, policies: Mapping[Family, Policy], names: Sequence[str]
) -> list[Floats]:
    """Compute the metrics of each user for each successful run of a group, [U, M] for each."""
    return [frame.compute_per_user(record, policies[record.family], names) for record in list_successful(group)]


def _order_groups(frame: ReportFrame, policies: Mapping[Family, Policy], sort_metric: str) -> list[int]:
    """Order the groups by family; inside a family the best one is first, and those without a result are last.

    They may be ordered by a metric that is not a column, such as N@20 in a table with K = 50.

    Returns:
        Indices into `frame.groups`.
    """
    families = list(FAMILY_TITLES)

    def rank_group(index: int) -> tuple[int, bool, float, str]:
        group = frame.groups[index]
        per_seed = _compute_per_seed(frame, group, policies, [sort_metric])
        value = float(np.mean(per_seed or 0.0))
        return families.index(group[0].family), not per_seed, -value, group[0].label

    return sorted(range(len(frame.groups)), key=rank_group)


def _build_row(group: Group, cells: Mapping[str, Cell], paper: Mapping[str, Mapping[str, float]]) -> Row:
    """Build one row from the runs of its seeds; if none succeeded, the row shows the problem of the last one."""
    successful = list_successful(group)
    last = group[-1]
    trained = [record for record in successful if record.combination is None]  # the others only search weights
    seconds = [record.train_seconds for record in trained if record.train_seconds is not None]
    return Row(
        family=last.family,
        model=last.label,
        source=last.source,
        preset=last.preset,
        status="success" if successful else last.status,
        problem=None if successful else describe_problem(last),
        seeds=tuple("unknown" if has_unknown_seed(record.external) else record.seed for record in successful),
        cells=cells,
        paper=paper.get(last.model, {}),
        train_seconds=sum(seconds) / len(seconds) if seconds else None,
        host_bytes=_find_largest([record.peak_memory_bytes["host"] for record in successful]),
        device_bytes=_find_largest([record.peak_memory_bytes["device"] for record in successful]),
        trainable_parameters=successful[0].parameters["trainable"] if successful else None,
        total_parameters=successful[0].parameters["total"] if successful else None,
        search=last.search,
    )


def _add_ids(
    rows: Sequence[Row], groups: Sequence[Group], policies: Mapping[Family, Policy], cutoffs: Sequence[int]
) -> tuple[Row, ...]:
    """Add the ids of their numbers to rows; a row without a successful run has none."""
    numbers = [identify_number(group, policies[group[0].family], cutoffs) for group in groups]
    return tuple(
        row if number is None else replace(row, number_id=number.name)
        for row, number in zip(rows, numbers, strict=True)
    )


def _find_largest(sizes: Sequence[int | None]) -> int | None:
    """Return the largest known size; None if none is known."""
    return max((size for size in sizes if size is not None), default=None)
