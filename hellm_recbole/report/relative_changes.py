"""Changes of a metric against a row of reference, by a paired bootstrap over users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hellm_recbole.evaluation.metrics import FloatVector
from hellm_recbole.evaluation.significance import bootstrap_means, compute_interval, compute_p_value, correct_holm
from hellm_recbole.report.settings import ReportSettings


@dataclass(frozen=True)
class RelativeChange:
    """Change of the mean of a metric against a row of reference.

    Attributes:
        change: difference of the means, as a fraction of the mean of the reference; None where that mean is 0.
        low: lower end of the bootstrap interval of the change, in the same unit; None where `change` is None.
        high: upper end of that interval, in the same unit; None where `change` is None.
        p: p-value of the two-sided paired bootstrap over users, Holm-corrected over all compared columns.
    """

    change: float | None
    low: float | None
    high: float | None
    p: float


def compare_with_reference(
    reference: FloatVector, others: Sequence[FloatVector], settings: ReportSettings
) -> list[RelativeChange]:
    """Compare rows with a row of reference by a paired bootstrap over users.

    Args:
        reference: [U] metric of the reference for each user.
        others: metric of each compared row for the same users, each [U].
        settings: settings of the bootstrap.

    Returns:
        The change of the mean, both ends of its interval, and the Holm-corrected p-value, for each compared row.
    """
    return compare_columns([reference] * len(others), others, settings)


def compare_columns(
    references: Sequence[FloatVector], others: Sequence[FloatVector], settings: ReportSettings
) -> list[RelativeChange]:
    """Compare columns with a reference of their own each, such as several metrics; see `compare_with_reference`."""
    pairs = list(zip(references, others, strict=True))
    differences = np.stack([values - reference for reference, values in pairs], axis=1)
    means = differences.mean(axis=0)
    resampled = bootstrap_means(differences, settings.n_resamples, settings.bootstrap_seed)
    low, high = compute_interval(resampled, settings.confidence_level)
    p = correct_holm(np.array([compute_p_value(float(mean), resampled[:, index]) for index, mean in enumerate(means)]))

    def relate(values: np.ndarray, index: int) -> float | None:
        base = float(references[index].mean())
        return float(values[index]) / base if base else None

    return [
        RelativeChange(relate(means, index), relate(low, index), relate(high, index), float(p[index]))
        for index in range(len(pairs))
    ]
