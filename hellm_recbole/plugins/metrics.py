"""Metrics of installed packages: functions of the ranks of all targets.

An entry point of the group `hellm_recbole.metrics` is a function of `TargetRanks` and a cut-off K that returns one
number for each user. Its name is that of the metric, which stands in tables as `NAME@K`. All installed metrics are
computed for all runs, also for earlier ones, because they need only the saved ranks. They change no other number, and
no run is selected by them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.config.plugin_points import METRICS, PluginPoint, list_points
from hellm_recbole.errors import PluginError
from hellm_recbole.plugins.loading import convert_failures, load_point, report_unusable

FloatVector = npt.NDArray[np.float64]
_OWN_NAMES = ("r", "n", "recall", "ndcg")


@dataclass(frozen=True)
class TargetRanks:
    """Ranks of the T targets of one phase, sorted by user. All metrics get the same arrays, which are read-only.

    Attributes:
        user: [T] index of the target's user, 0..U-1.
        rank: [T] rank of the target among the candidates, counted from 1; the user's earlier items are masked.
        item_count: [T] training interactions of the target; 0 is a cold item.
        n_users: number of users that have a target, U.
        n_items: number of items, I.
    """

    user: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    item_count: npt.NDArray[np.int64]
    n_users: int
    n_items: int

    def average_by_user(self, values: npt.NDArray[Any]) -> FloatVector:
        """Average [T] values over the targets of each user, [U].

        >>> ranks = TargetRanks(np.array([0, 0, 1]), np.array([1, 4, 2]), np.array([9, 9, 9]), 2, 50)
        >>> ranks.average_by_user(1 / ranks.rank).tolist()
        [0.625, 0.5]
        """
        counts = np.bincount(self.user, minlength=self.n_users)
        mean: FloatVector = np.bincount(self.user, weights=values, minlength=self.n_users) / counts
        return mean


def sort_target_ranks(
    user: npt.NDArray[Any], rank: npt.NDArray[Any], item_count: npt.NDArray[Any], n_items: int
) -> TargetRanks:
    """Sort the ranks of a phase by user, and number the users.

    Args:
        user: [T] user of each target, as token or number.
        rank: [T] rank of each target.
        item_count: [T] training interactions of each target.
        n_items: number of items, I.
    """
    users, index = np.unique(user, return_inverse=True)
    order = np.argsort(index, kind="stable")
    sorted_user, sorted_rank, count = (values[order].astype(np.int64) for values in (index, rank, item_count))
    for values in (sorted_user, sorted_rank, count):
        values.setflags(write=False)
    return TargetRanks(sorted_user, sorted_rank, count, len(users), n_items)


@dataclass(frozen=True)
class PluginMetric:
    """A metric of an installed package.

    Attributes:
        name: name of the metric.
        function: function of `TargetRanks` and K that returns [U] numbers.
        point: entry point that has it.
    """

    name: str
    function: Callable[[TargetRanks, int], Any]
    point: PluginPoint

    def compute(self, ranks: TargetRanks, k: int) -> FloatVector:
        """Compute the metric of each user, [U].

        Raises:
            PluginError: the function fails, or does not return U finite numbers.
        """
        with convert_failures(f"metric {self.name} of {self.point.title} failed"):
            values = np.asarray(self.function(ranks, k), dtype=np.float64)
        if values.shape != (ranks.n_users,):
            raise PluginError(
                f"metric {self.name} of {self.point.title} returned an array of shape {values.shape}; return one "
                f"number for each user, shape ({ranks.n_users},)"
            )
        if not np.isfinite(values).all():
            raise PluginError(
                f"metric {self.name} of {self.point.title} returned NaN or infinity for {np.sum(~np.isfinite(values))} "
                "users; return finite numbers"
            )
        return values


@cache
def load_metrics() -> dict[str, PluginMetric]:
    """Load all installed metrics; what cannot be used is reported once on stderr and left out."""
    found: dict[str, PluginMetric] = {}
    for point in list_points(METRICS):
        try:
            metric = _load_metric(point)
            if metric.name in found:
                raise PluginError(
                    f"metric {metric.name} of {point.title} is also one of {found[metric.name].point.title}"
                )
        except PluginError as error:
            report_unusable(f"{error}; this metric is left out")
            continue
        found[metric.name] = metric
    return found


def _load_metric(point: PluginPoint) -> PluginMetric:
    """Load a metric.

    Raises:
        PluginError: it cannot be imported, is not a function, or has a name that cannot be used.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", point.name) or point.name.lower() in _OWN_NAMES:
        raise PluginError(
            f"metric {point.name!r} of {point.title} needs another name: letters, digits, - and _, and not R or N"
        )
    function = load_point(point)
    if not callable(function):
        raise PluginError(f"metric {point.name} of {point.title} is of type {type(function).__name__}, not a function")
    return PluginMetric(point.name, function, point)


def is_plugin_metric(name: str) -> bool:
    """Return whether a name such as MRR@10 is that of a metric of an installed package."""
    return name.partition("@")[0] in load_metrics()


def compute_plugin_metrics(ranks: TargetRanks, cutoffs: Sequence[int]) -> dict[str, float]:
    """Compute the mean of each installed metric over all users: `NAME@K` -> mean.

    A metric that fails is reported once on stderr and left out.
    """
    means: dict[str, float] = {}
    for metric in load_metrics().values():
        try:
            means |= {f"{metric.name}@{k}": float(metric.compute(ranks, k).mean()) for k in cutoffs}
        except PluginError as error:
            report_unusable(f"{error}; this metric is left out")
    return means
