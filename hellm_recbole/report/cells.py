"""Cells of a table: mean, spread, interval, p-value, place in the column, and star."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hellm_recbole.evaluation.significance import bootstrap_means, compute_interval, compute_p_value, correct_holm
from hellm_recbole.report.settings import ReportSettings

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One metric of one row.

    Attributes:
        mean: mean over users and seeds.
        sd: standard deviation over seeds (n - 1 in the denominator); None for a single seed.
        low: lower end of the bootstrap interval of the mean; None for a metric without a value for each user.
        high: upper end of that interval.
        p: Holm-corrected p-value against the best other row; None where there is no other row, or no interval.
        position: 1 for the best of the column, 2 for the second, otherwise 0; equal means have the same position.
        significant: whether this is the best row, significantly better than the best other row, with as many seeds.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    position: int
    significant: bool


def build_cells(
    per_seed: Sequence[Sequence[Floats]], names: Sequence[str], settings: ReportSettings
) -> list[dict[str, Cell]]:
    """Build the cells of all R rows that have a successful run.

    Args:
        per_seed: metrics of each user, [U, M] for each row and seed.
        names: names of the M metrics.
        settings: settings of the bootstrap and of the stars.

    Returns:
        Metric -> cell, for each of the R rows.
    """
    if not per_seed:
        return []
    values = np.stack([np.mean(seeds, axis=0) for seeds in per_seed], axis=1)  # [U, R, M], averaged over seeds
    seed_means = [np.array([per_user.mean(axis=0) for per_user in seeds]) for seeds in per_seed]  # [S, M] for each row
    n_users, n_rows, n_metrics = values.shape
    means = values.mean(axis=0)  # [R, M]
    resampled = bootstrap_means(
        values.reshape(n_users, n_rows * n_metrics), settings.n_resamples, settings.bootstrap_seed
    ).reshape(settings.n_resamples, n_rows, n_metrics)
    low, high = compute_interval(resampled, settings.confidence_level)
    best = means.argmax(axis=0)  # [M]
    rivals = np.where(np.arange(n_rows)[:, None] == best, -np.inf, means).argmax(axis=0)  # [M], 0 for a single row
    p = _compare_with_best(means, resampled, best, rivals)
    positions = _find_positions(means)
    return [
        {
            name: Cell(
                mean=float(means[row, column]),
                sd=float(seed_means[row][:, column].std(ddof=1)) if len(seed_means[row]) > 1 else None,
                low=float(low[row, column]),
                high=float(high[row, column]),
                p=None if n_rows == 1 else float(p[row, column]),
                position=int(positions[row, column]),
                significant=bool(
                    row == best[column]
                    and p[row, column] < settings.significance_level
                    and len(seed_means[row]) == len(seed_means[rivals[column]])
                ),
            )
            for column, name in enumerate(names)
        }
        for row in range(n_rows)
    ]


def _compare_with_best(
    means: Floats, resampled: Floats, best: npt.NDArray[np.intp], rivals: npt.NDArray[np.intp]
) -> Floats:
    """Compare each row with the best other row of each column.

    For all rows except the best one, the best other row is the best row. The test of the best row is the same as that
    of its rival, so it is counted once.

    Args:
        means: [R, M] means.
        resampled: [N, R, M] means of each resample.
        best: [M] best row of each column.
        rivals: [M] best row of each column other than `best`.

    Returns:
        [R, M] Holm-corrected p-values; NaN for a single row.
    """
    n_rows = len(means)
    raw = np.full(means.shape, np.nan)
    for column, top in enumerate(best):
        for row in set(range(n_rows)) - {top}:
            difference = means[top, column] - means[row, column]
            raw[row, column] = compute_p_value(difference, resampled[:, top, column] - resampled[:, row, column])
    tested = ~np.isnan(raw)
    adjusted = np.full_like(raw, np.nan)
    adjusted[tested] = correct_holm(raw[tested])
    if n_rows > 1:
        columns = np.arange(len(best))
        adjusted[best, columns] = adjusted[rivals, columns]
    return adjusted


def _find_positions(means: Floats) -> npt.NDArray[np.int64]:
    """Find the best and second best means of each column.

    >>> _find_positions(np.array([[0.5], [0.7], [0.5], [0.1]])).ravel().tolist()
    [2, 1, 2, 0]
    """
    positions = np.zeros(means.shape, dtype=np.int64)
    for column, values in enumerate(means.T):
        for position, value in enumerate(np.unique(values)[::-1][:2], start=1):
            positions[values == value, column] = position
    return positions
