"""Pairs of rows, compared user by user for the page's script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hellm_recbole.evaluation.significance import bootstrap_means, compute_interval, compute_p_value
from hellm_recbole.report.finished_rows import FinishedRow
from hellm_recbole.report.frame import Floats, ReportFrame
from hellm_recbole.report.settings import ReportSettings


def compare_pairs(
    frame: ReportFrame, rows: Sequence[FinishedRow], cutoffs: Sequence[int], settings: ReportSettings
) -> dict[str, Any]:
    """Compare every two rows user by user.

    Args:
        frame: runs of the table.
        rows: finished rows.
        cutoffs: cut-offs K; the rows are compared in NDCG at the largest one.
        settings: settings of the bootstrap.

    Returns:
        `names` of the rows, name of the `metric`, and `versus`. For i < j, `versus[i][j - i - 1]` compares row i with
        row j, see `_compare_pair`.
    """
    metric = f"N@{max(cutoffs)}"
    versus: list[list[dict[str, float]]] = []
    if len(rows) > 1:
        values = np.stack([frame.average_seeds(row.runs, [metric])[:, 0] for row in rows], axis=1)
        resampled = bootstrap_means(values, settings.n_resamples, settings.bootstrap_seed)
        for i in range(len(rows)):
            later = range(i + 1, len(rows))
            differences = [(values[:, i] - values[:, j], resampled[:, i] - resampled[:, j]) for j in later]
            versus.append([_compare_pair(*pair, settings.confidence_level) for pair in differences])
    return {"names": [row.name for row in rows], "metric": metric, "versus": versus}


def _compare_pair(difference: Floats, resampled: Floats, level: float) -> dict[str, float]:
    """Compare the first row of a pair with the second one.

    Args:
        difference: [U] difference of the metric for each user.
        resampled: [N] mean difference of each resample.
        level: confidence level of the interval.

    Returns:
        Numbers of users for whom the first row is better, equal and worse (`wins`, `ties`, `losses`), the `mean`
        difference, the ends of its interval (`low`, `high`), and its uncorrected p-value `p`.
    """
    low, high = compute_interval(resampled, level)
    mean = float(difference.mean())
    return {
        "wins": int((difference > 0).sum()),
        "ties": int((difference == 0).sum()),
        "losses": int((difference < 0).sum()),
        "mean": mean,
        "low": float(low),
        "high": float(high),
        "p": compute_p_value(mean, resampled),
    }
