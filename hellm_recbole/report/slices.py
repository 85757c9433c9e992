"""Metrics of slices, which are parts of the test targets: by history length of the user and by popularity of the item.

All slices are computed from the saved test ranks under the policy `mask_history`, so no model is evaluated again. A
user with several targets counts in a slice with only the targets that belong to the slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.evaluation import metrics
from hellm_recbole.report.frame import RANK_COLUMNS, ReportFrame, name_metrics
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.rendering import render_csv_lines
from hellm_recbole.report.settings import ReportSettings

COLUMNS = ("model", "preset", "n_seeds", "slice", "n")  # of `slices.csv`, before the metrics

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


def average_slice(frame: ReportFrame, group: Group, mask: BoolArray, cutoffs: Sequence[int]) -> dict[str, float]:
    """Average metrics over the users of a slice, and then over seeds.

    Args:
        frame: all runs.
        group: runs of a row, of which at least one was successful.
        mask: [T] whether a target belongs to the slice.
        cutoffs: cut-offs K.

    Returns:
        Metric -> mean.
    """
    seed_means = []
    for record in list_successful(group):
        targets = frame.get_targets(record)
        users, ranks = targets["user"].cat.codes.to_numpy(), targets[RANK_COLUMNS[frame.mask_policy]].to_numpy()
        seed_means.append(metrics.average_metrics(users[mask], ranks[mask], cutoffs))
    return {name: sum(means[name] for means in seed_means) / len(seed_means) for name in seed_means[0]}


def build_slices(
    frame: ReportFrame, settings: ReportSettings, *, cutoffs: Sequence[int] | None = None
) -> list[dict[str, object]]:
    """Compute number of users and mean metrics over users and seeds.

    Args:
        frame: runs of the table.
        settings: quantiles of the slices.
        cutoffs: cut-offs K; None takes those of the runs.

    Returns:
        One line for each slice of each row: column -> value, see `COLUMNS`, followed by the metrics.
    """
    lines: list[dict[str, object]] = []
    for group in frame.groups:
        successful = list_successful(group)
        if not successful:
            continue
        test = frame.get_targets(successful[0])
        slices = {"all": np.ones(len(test), dtype=np.bool_)}
        slices |= slice_by_history(test["history_length"].to_numpy(), settings.history_quantiles)
        slices |= slice_by_popularity(test["item_count"].to_numpy(), settings.popularity_quantiles)
        for name, mask in slices.items():
            n_users = test["user"][mask].nunique()
            line = (group[0].label, group[0].preset, len(successful), name, n_users)
            means = average_slice(frame, group, mask, frame.choose_cutoffs(cutoffs))
            lines.append({**dict(zip(COLUMNS, line, strict=True)), **means})
    return lines


def render_slices(lines: Sequence[Mapping[str, object]], cutoffs: Sequence[int]) -> str:
    """Render the lines of `build_slices` as CSV; without lines, only the names of the columns are written."""
    return render_csv_lines(lines, [*COLUMNS, *name_metrics(cutoffs)])
