"""Metrics of parts of the targets: by the user's history length, by the target's popularity, and cold targets.

All slices come from the saved ranks, policy `mask_history`, test part, so that nothing is evaluated again. A user with
several targets counts in a slice with those targets that lie in it.
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
    """Groups of targets by history length, cut at quantiles; equal lengths stay together, so groups differ in size.

    Args:
        history_length: [T] interactions of the target's user before the phase.
        n_quantiles: number of groups, fewer where lengths tie.

    Returns:
        Name -> [T] mask; each target is in one group.

    >>> groups = slice_by_history(np.array([2, 2, 2, 3, 5, 9], dtype=np.int32), 2)
    >>> {name: mask.tolist() for name, mask in groups.items()}
    {'history 2': [True, True, True, False, False, False], 'history 3-9': [False, False, False, True, True, True]}
    """
    inner = np.arange(1, n_quantiles) / n_quantiles
    return _cut("history", history_length, np.quantile(history_length, inner, method="inverted_cdf"))


def slice_by_popularity(item_count: npt.NDArray[np.int32], quantiles: Sequence[float]) -> dict[str, BoolArray]:
    """Groups of targets by the training count of the item: cold (0), then the rest cut at quantiles of these targets.

    With two quantiles the groups are called tail, mid and head.

    Args:
        item_count: [T] training interactions of the target.
        quantiles: rising, in (0, 1).

    Returns:
        Name -> [T] mask; each target is in one group.
    """
    groups: dict[str, BoolArray] = {}
    warm = np.flatnonzero(item_count)
    if len(warm) < len(item_count):
        groups["cold items"] = item_count == 0
    if len(warm):
        names = ("tail items", "mid items", "head items") if len(quantiles) == 2 else None
        counts = item_count[warm]
        cut = _cut("item count", counts, np.quantile(counts, quantiles, method="inverted_cdf"), names)
        for name, mask in cut.items():
            groups[name] = np.zeros(len(item_count), dtype=np.bool_)
            groups[name][warm[mask]] = True
    return groups


def _cut(
    what: str, values: npt.NDArray[np.int32], upper: npt.NDArray[np.number[Any]], names: Sequence[str] | None = None
) -> dict[str, BoolArray]:
    """Masks of the values in (-inf, upper[0]], (upper[0], upper[1]], ..., (upper[-1], inf), each named by its range."""
    place = np.searchsorted(upper, values)  # the first bound that is not below the value
    groups = {}
    for index in np.unique(place):
        mask = place == index
        low, high = int(values[mask].min()), int(values[mask].max())
        label = what if names is None else names[index]
        groups[f"{label} {low}" if low == high else f"{label} {low}-{high}"] = mask
    return groups


def average_slices(
    phases: Sequence[PhaseRanks], policy: Policy, mask: BoolArray, cutoffs: Sequence[int]
) -> dict[str, float]:
    """Metric -> mean over the users of a slice, then over seeds.

    Args:
        phases: ranks of each seed of a row.
        policy: whose ranks.
        mask: [T] targets of the slice.
        cutoffs: the K.
    """
    each = [metrics.average_metrics(phase.user[mask], phase.under(policy)[mask], cutoffs) for phase in phases]
    return {name: sum(one[name] for one in each) / len(each) for name in each[0]}


def write_slices(results_dir: Path, dataset: str, *, cutoffs: Sequence[int] | None = None) -> Path:
    """Write `slices.csv` of a dataset: for each row and slice the users, and means over users and seeds.

    Args:
        results_dir: holds `<dataset>/<model>/<seed>/record.json`.
        dataset: name.
        cutoffs: the K; None takes those of the records.

    Raises:
        ResultError: there are no records, one is broken, or they may not share a table.
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
        done = [ranks[record.path] for record in group if record.path in ranks]
        if not done:
            continue
        test = done[0]
        slices = {"all": np.ones(len(test.user), dtype=np.bool_)}
        slices |= slice_by_history(test.history_length, settings.history_quantiles)
        slices |= slice_by_popularity(test.item_count, settings.popularity_quantiles)
        for name, mask in slices.items():
            means = average_slices(done, group[0].mask_history, mask, cutoffs).values()
            n_users = len(np.unique(test.user[mask]))
            line = [group[0].label, group[0].preset, len(done), name, n_users, *means]
            writer.writerow(escape_csv(line))
    path = results_dir / dataset / "slices.csv"
    write_text(path, stream.getvalue())
    return path
