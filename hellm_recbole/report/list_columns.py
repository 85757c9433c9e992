"""Columns of a table that describe the test lists of its rows: coverage, Gini, novelty, popularity and diversity.

They need the lists (`run.py --export test-lists`) and the prepared dataset. They say what is recommended and not how
well, so no value of such a column is marked as the best.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hellm_recbole.config.metric_names import COVERAGE, DIVERSITY, GINI, LIFT, NOVELTY, MetricName
from hellm_recbole.config.request import TEST_LISTS
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.replacement import is_prepared
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError
from hellm_recbole.evaluation.list_metrics import (
    ItemCounts,
    compute_coverage,
    compute_diversity,
    compute_gini,
    compute_lift,
    compute_novelty,
    compute_popularity,
    count_items,
)
from hellm_recbole.experiments.list_file import StoredLists, check_hits, find_list_length, read_lists
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.plugins.splits import find_option, split_as_named
from hellm_recbole.report.cells import Cell, build_cells
from hellm_recbole.report.frame import Floats, ReportFrame
from hellm_recbole.report.further_columns import Columns, describe_columns
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.settings import ReportSettings

_DIGITS = 12  # first digits of a digest
_WITHOUT_USERS = (COVERAGE, GINI)  # metrics of all lists together, which have no value for each user


@dataclass(frozen=True)
class _Data:
    """What metrics of lists read besides the lists: the split with its features, and counts of its training part."""

    split: Split
    counts: ItemCounts


_Values = dict[str, Floats]  # metric -> [U] value of each user, or [1] value of all lists together


def build_list_columns(
    frame: ReportFrame, names: Sequence[MetricName], settings: ReportSettings, dataset_root: Path
) -> Columns:
    """Build the columns of metrics of test lists.

    A row has a value at K if all its successful runs have lists of at least K items.

    Args:
        frame: runs of the table.
        names: metrics; all are computed from lists.
        settings: settings of the report.
        dataset_root: folder of the prepared datasets.

    Raises:
        ResultError: a file of lists is damaged or belongs to another run.
        DataError: there are lists, and the dataset is not prepared, has another split or lacks a modality.
    """
    lengths = {
        index: min(find_list_length(_get_folder(record)) for record in list_successful(group))
        for index, group in enumerate(frame.groups)
        if names and list_successful(group)
    }
    k = max((name.k or 0 for name in names), default=0)
    missing = [frame.groups[index] for index, length in lengths.items() if length < k]
    notes = _advise_on_missing(missing, k)
    usable = {index for index, length in lengths.items() if any((name.k or 0) <= length for name in names)}
    if not usable:
        return Columns(tuple(map(str, names)), {}, notes)
    data = _load_data(frame.records[0], names, dataset_root)
    names = _expand_modalities(names, sorted(data.split.features))
    values = {
        index: [
            _compute_run(record, data, [name for name in names if (name.k or 0) <= lengths[index]])
            for record in list_successful(frame.groups[index])
        ]
        for index in sorted(usable)
    }
    cells: dict[int, dict[str, Cell]] = {index: {} for index in values}
    notes = (*_describe_columns(names, data.split), *notes)
    for columns, rows, kept in _group_columns(names, values):
        notes = (*notes, *_fill_cells(cells, columns, rows, kept, values, settings))
    for name in names:
        for index, runs in values.items():
            if name.kind in _WITHOUT_USERS and str(name) in runs[0]:
                cells[index][str(name)] = _make_cell([float(run[str(name)][0]) for run in runs])
    return Columns(tuple(map(str, names)), cells, notes)


def _get_folder(record: RunResult) -> Path:
    """Return the folder of a run."""
    assert record.path is not None
    return record.path.parent


def _load_data(record: RunResult, names: Sequence[MetricName], root: Path) -> _Data:
    """Load the split of the runs, with the features that the metrics read.

    Raises:
        DataError: the dataset is not prepared, has another split than the runs, or lacks a modality.
    """
    folder = root / record.dataset
    if not is_prepared(folder):
        raise DataError(
            f"metrics of test lists read the training part of {record.dataset}, and there is no {folder}; run "
            f"`hellm-recbole prepare {record.dataset}` first"
        )
    wanted = [name.modality for name in names if name.kind == DIVERSITY]
    modalities = None if None in wanted else sorted({modality for modality in wanted if modality is not None})
    dataset = load_dataset(folder, modalities=modalities)
    _, split = split_as_named(dataset, find_option(record.split_kind), folder)
    if split.sha256 != record.split_hash:
        raise DataError(
            f"{folder} has the split {split.sha256[:_DIGITS]}, and the runs have {record.split_hash[:_DIGITS]}; "
            "prepare the dataset as it was for the runs"
        )
    return _Data(split, count_items(split.train, split.n_items))


def _expand_modalities(names: Sequence[MetricName], modalities: Sequence[str]) -> list[MetricName]:
    """Replace ILD@K by ILD-MODALITY@K of each modality.

    >>> [str(name) for name in _expand_modalities([MetricName("ILD", 5), MetricName("Gini", 5)], ["image", "text"])]
    ['ILD-image@5', 'ILD-text@5', 'Gini@5']
    """
    expanded = [
        replace(name, modality=modality)
        for name in names
        for modality in (modalities if name.kind == DIVERSITY and name.modality is None else [name.modality])
    ]
    return list(dict.fromkeys(expanded))


def _compute_run(record: RunResult, data: _Data, names: Sequence[MetricName]) -> _Values:
    """Compute metrics of the test lists of one run.

    Raises:
        ResultError: the lists are damaged, or belong to another run.
    """
    folder, k = _get_folder(record), max(name.k or 0 for name in names)
    stored = read_lists(folder, record, data.split, k)
    ranks = read_ranks(folder / record.ranks, record.ranks_sha256)["test"]
    check_hits(folder, stored, ranks, data.split, k)
    return {str(name): _compute(name, stored, data) for name in names}


def _compute(name: MetricName, stored: StoredLists, data: _Data) -> Floats:
    """Compute a metric: [U] value of each user, or [1] value of all lists together."""
    lists = stored.lists.cut(name.k or 0)
    if name.kind == COVERAGE:
        return np.array([compute_coverage(lists)])
    if name.kind == GINI:
        return np.array([compute_gini(lists)])
    if name.kind == NOVELTY:
        return compute_novelty(lists, data.counts)
    if name.kind == LIFT:
        return compute_lift(lists, data.counts, stored.user_ids)
    if name.kind == DIVERSITY:
        assert name.modality is not None
        return compute_diversity(lists, data.split.features[name.modality], data.split.covered[name.modality])
    return compute_popularity(lists, data.counts)


def _group_columns(
    names: Sequence[MetricName], values: Mapping[int, Sequence[_Values]]
) -> list[tuple[list[str], list[int], np.ndarray]]:
    """Group the metrics with a value for each user by the rows and users that have one.

    Returns:
        Columns, indices of their rows, and [U] whether a user has a value, for each group.
    """
    grouped: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
    for name in map(str, (name for name in names if name.kind not in _WITHOUT_USERS)):
        rows = tuple(index for index, runs in values.items() if name in runs[0])
        if rows:
            kept = np.isfinite(values[rows[0]][0][name])
            grouped.setdefault((rows, kept.tobytes()), []).append(name)
    return [(columns, [*rows], np.frombuffer(kept, dtype=np.bool_)) for (rows, kept), columns in grouped.items()]


def _fill_cells(
    cells: Mapping[int, dict[str, Cell]],
    columns: Sequence[str],
    rows: Sequence[int],
    kept: np.ndarray,
    values: Mapping[int, Sequence[_Values]],
    settings: ReportSettings,
) -> tuple[str, ...]:
    """Fill the cells of columns with a value for each user, and return sentences about them.

    Args:
        cells: index of a row -> its cells, which are filled.
        columns: names of the columns.
        rows: indices of the rows that have them.
        kept: [U] whether a user has a value.
        values: index of a row -> values of each of its runs.
        settings: settings of the report.
    """
    if not kept.any():
        return (f"No user has a training part, so there is no {', '.join(columns)}.",)
    per_seed = [[np.stack([run[name][kept] for name in columns], axis=1) for run in values[index]] for index in rows]
    for index, built in zip(rows, build_cells(per_seed, columns, settings), strict=True):
        cells[index].update({name: replace(cell, position=0, significant=False) for name, cell in built.items()})
    notes = describe_columns(columns, len(rows))
    if not kept.all():
        whom = f"the {kept.sum():,} of {len(kept):,} users with a training part"
        notes = (f"{', '.join(columns)}: mean over {whom}.", *notes)
    return notes


def _make_cell(seeds: Sequence[float]) -> Cell:
    """Make the cell of a metric that has no value for each user, so no interval and no p-value."""
    sd = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None
    return Cell(float(np.mean(seeds)), sd, low=None, high=None, p=None, position=0, significant=False)


def _describe_columns(names: Sequence[MetricName], split: Split) -> tuple[str, ...]:
    """Say what the columns are, and which features the diversity is computed from."""
    if not names:
        return (f"{split.dataset} has no item features, so there is no {DIVERSITY}.",)
    notes = [
        f"{', '.join(map(str, names))} describe the first K items of test lists, under mask policy seen: what is "
        "recommended, not how well, so no value is marked; a p-value compares a row with that of the highest mean."
    ]
    for modality in dict.fromkeys(name.modality for name in names if name.modality is not None):
        without = split.n_items - int(split.covered[modality].sum())
        said = f"; {without:,} items have none of their own and are left out" if without else ""
        notes.append(f"{DIVERSITY}-{modality}: features with SHA-256 {split.feature_sha256[modality][:_DIGITS]}{said}.")
    return tuple(notes)


def _advise_on_missing(groups: Sequence[Group], k: int) -> tuple[str, ...]:
    """Say which rows have no test lists of k items, and which command writes them."""
    if not groups:
        return ()
    runs = [record for group in groups for record in list_successful(group)]
    models = ",".join(dict.fromkeys(record.model for record in runs))
    seeds = ",".join(map(str, sorted({record.seed for record in runs})))
    return (
        f"Without test lists of {k} items, so with empty cells: {', '.join(group[0].label for group in groups)}; "
        f"`hellm-recbole run --models {shlex.quote(models)} --dataset {runs[0].dataset} --seeds {seeds} --export "
        f"{TEST_LISTS} --export-k {k}`, with the other options that the runs had, writes them.",
    )
