"""Metrics of slices, which are parts of the test targets: by history length of the user and by popularity of the item.

All slices are computed from the saved test ranks under the policy `mask_history`, so no model is evaluated again. A
user with several targets counts in a slice with only the targets that belong to the slice.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.evaluation import metrics
from hellm_recbole.experiments.results import PhaseRanks, Policy
from hellm_recbole.report.tables import (
    drop_variants,
    escape_csv,
    group_rows,
    read_report_settings,
    read_test_ranks,
    select_results,
)
from hellm_recbole.system.files import write_text

BoolArray = npt.NDArray[np.bool_]


def slice_by_history(history_length: npt.NDArray[np.int32], n_quantiles: int) -> dict[str, BoolArray]:
    """Group targets by history length, cut at quantiles.

    Equal lengths are in the same group, so groups may differ in size.

    Args:
        history_length: [T] number of interactions that the target's user had before the phase.
        n_quantiles: number of groups; ties between lengths may leave fewer.

    Returns:
        Name of the group -> [T] mask of its targets; each target is in exactly one group.

    >>> groups = slice_by_history(np.array([2, 2, 2, 3, 5, 9], dtype=np.int32), 2)
    >>> {name: mask.tolist() for name, mask in groups.items()}
    {'history 2': [True, True, True, False, False, False], 'history 3-9': [False, False, False, True, True, True]}
    """
    inner = np.arange(1, n_quantiles) / n_quantiles
    return _cut_values("history", history_length, np.quantile(history_length, inner, method="inverted_cdf"))


def slice_by_popularity(item_count: npt.NDArray[np.int32], quantiles: Sequence[float]) -> dict[str, BoolArray]:
    """Group targets by how often the item occurs in training: cold items (0), and the others cut at quantiles.

    The quantiles are those of the targets that are not cold. With two quantiles the groups are called tail, mid and
    head.

    Args:
        item_count: [T] number of training interactions of the target item.
        quantiles: quantiles in (0, 1), ascending.

    Returns:
        Name of the group -> [T] mask of its targets; each target is in exactly one group.
    """
    groups: dict[str, BoolArray] = {}
    warm = np.flatnonzero(item_count)
    if len(warm) < len(item_count):
        groups["cold items"] = item_count == 0
    if len(warm):
        names = ("tail items", "mid items", "head items") if len(quantiles) == 2 else None
        counts = item_count[warm]
        warm_groups = _cut_values("item count", counts, np.quantile(counts, quantiles, method="inverted_cdf"), names)
        for name, mask in warm_groups.items():
            groups[name] = np.zeros(len(item_count), dtype=np.bool_)
            groups[name][warm[mask]] = True
    return groups


def _cut_values(
    quantity: str, values: npt.NDArray[np.int32], upper: npt.NDArray[np.number[Any]], names: Sequence[str] | None = None
) -> dict[str, BoolArray]:
    """Return masks of the values in (-inf, upper[0]], (upper[0], upper[1]], ..., (upper[-1], inf), without empty ones.

    Args:
        quantity: what the values are; each group is named after it and its range.
        values: [T] values to group.
        upper: upper ends of all groups but the last, ascending.
        names: name of each group in place of `quantity`.
    """
    group_index = np.searchsorted(upper, values)  # index of the first bound that is not below the value
    groups = {}
    for index in np.unique(group_index):
        mask = group_index == index
        low, high = int(values[mask].min()), int(values[mask].max())
        label = quantity if names is None else names[index]
        groups[f"{label} {low}" if low == high else f"{label} {low}-{high}"] = mask
    return groups


def average_slices(
    phases: Sequence[PhaseRanks], policy: Policy, mask: BoolArray, cutoffs: Sequence[int]
) -> dict[str, float]:
    """Average metrics over the users of a slice, and then over seeds.

    Args:
        phases: ranks of each seed of a row.
        policy: masking policy of the ranks.
        mask: [T] whether a target belongs to the slice.
        cutoffs: cut-offs K.

    Returns:
        Metric -> mean.
    """
    seed_means = [metrics.average_metrics(phase.user[mask], phase.get_ranks(policy)[mask], cutoffs) for phase in phases]
    return {name: sum(means[name] for means in seed_means) / len(seed_means) for name in seed_means[0]}


def write_slices(results_dir: Path, dataset: str, *, cutoffs: Sequence[int] | None = None) -> Path:
    """Write `slices.csv` of a dataset: number of users and mean metrics over users and seeds, for each row and slice.

    Args:
        results_dir: folder that contains `<dataset>/<model>/<seed>/record.json`.
        dataset: name of the dataset.
        cutoffs: cut-offs K; None takes those of the runs.

    Returns:
        Path of the file.

    Raises:
        ResultError: there are no run results, one is broken, or the runs cannot be compared in one table.
        OutputError: the file cannot be written.
    """
    records = drop_variants(select_results(results_dir, dataset))
    ranks = read_test_ranks(records)
    settings = read_report_settings()
    cutoffs = records[0].cutoffs if cutoffs is None else sorted(set(cutoffs))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", "preset", "n_seeds", "slice", "n", *(f"{kind}@{k}" for k in cutoffs for kind in "RN")])
    for group in group_rows(records):
        phases = [ranks[record.path] for record in group if record.path in ranks]
        if not phases:
            continue
        test = phases[0]
        slices = {"all": np.ones(len(test.user), dtype=np.bool_)}
        slices |= slice_by_history(test.history_length, settings.history_quantiles)
        slices |= slice_by_popularity(test.item_count, settings.popularity_quantiles)
        for name, mask in slices.items():
            means = average_slices(phases, group[0].mask_history, mask, cutoffs).values()
            n_users = len(np.unique(test.user[mask]))
            line = [group[0].label, group[0].preset, len(phases), name, n_users, *means]
            writer.writerow(escape_csv(line))
    path = results_dir / dataset / "slices.csv"
    write_text(path, stream.getvalue())
    return path
