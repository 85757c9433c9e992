"""Cells of a table: mean, spread, interval, p-value, place in the column, and star."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hellm_recbole.config.comparison import DEFAULT, Comparison
from hellm_recbole.evaluation.significance import bootstrap_means, compute_interval
from hellm_recbole.report.comparisons import NO_RIVAL, CellComparison, compare_rows, describe_pair, to_known
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
        p: corrected p-value against the best other row, or against the chosen one; None where there is no such row, or
            no interval.
        position: 1 for the best of the column, 2 for the second, otherwise 0; equal means have the same position.
        significant: whether this is the best row, significantly better than the best other row, with as many seeds; or
            whether it differs significantly from the chosen row, with as many seeds.
        comparison: how the row compares with that other row; None where there is none, and unless it was asked for.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    position: int
    significant: bool
    comparison: CellComparison | None = None


def build_cells(
    per_seed: Sequence[Sequence[Floats]],
    names: Sequence[str],
    settings: ReportSettings,
    comparison: Comparison | None = None,
    against: int | None = None,
    labels: Sequence[str] = (),
) -> list[dict[str, Cell]]:
    """Build the cells of all R rows that have a successful run.

    Args:
        per_seed: metrics of each user, [U, M] for each row and seed.
        names: names of the M metrics.
        settings: settings of the bootstrap and of the stars.
        comparison: how the rows are compared; None is the default, and the cells do not describe their comparisons.
        against: row that all others are compared with; None for the best other row of each column.
        labels: names of the R rows, for the descriptions.

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
    how = comparison or DEFAULT
    compared = compare_rows(values, resampled, how, against, settings)
    p = compared.p[how.tests[0]]
    has_star = _find_stars(means, compared.rivals, p, [len(seeds) for seeds in seed_means], against, settings)
    positions = _find_positions(means)

    def describe(row: int, column: int) -> CellComparison | None:
        rival = int(compared.rivals[row, column])
        if comparison is None or rival == NO_RIVAL:
            return None
        return describe_pair(values, resampled, compared, row, column, labels[rival], settings.confidence_level)

    return [
        {
            name: Cell(
                mean=float(means[row, column]),
                sd=float(seed_means[row][:, column].std(ddof=1)) if len(seed_means[row]) > 1 else None,
                low=float(low[row, column]),
                high=float(high[row, column]),
                p=to_known(p[row, column]),
                position=int(positions[row, column]),
                significant=bool(has_star[row, column]),
                comparison=describe(row, column),
            )
            for column, name in enumerate(names)
        }
        for row in range(n_rows)
    ]


def _find_stars(
    means: Floats,
    rivals: npt.NDArray[np.intp],
    p: Floats,
    n_seeds: Sequence[int],
    against: int | None,
    settings: ReportSettings,
) -> npt.NDArray[np.bool_]:
    """Find the cells with a star: significantly different from their rival, with as many seeds.

    Args:
        means: [R, M] means.
        rivals: [R, M] row that each row is compared with, `NO_RIVAL` where there is none.
        p: [R, M] corrected p-values; NaN where there is no rival.
        n_seeds: number of seeds of each row.
        against: row that all others are compared with. None compares with the best other row, and only the best row of
            a column can have a star.
        settings: settings of the stars.

    Returns:
        [R, M] whether there is a star.
    """
    seeds = np.array(n_seeds)
    stars: npt.NDArray[np.bool_] = (p < settings.significance_level) & (seeds[:, None] == seeds[rivals])
    if against is None:
        stars &= np.arange(len(means))[:, None] == means.argmax(axis=0)
    return stars


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
