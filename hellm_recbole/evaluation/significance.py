"""Paired bootstrap over users, and Holm's correction.

Definition. Let `a_u` and `b_u` be a metric of two models for user u, and `d = mean(a_u - b_u)` over the U evaluated
users. A resample draws U users with replacement, the same ones for both models, and gives `d*`. The two-sided
p-value is

    p = (1 + #{|d* - d| >= |d|}) / (1 + number of resamples)

(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 16: the resampled differences, moved to mean
zero, stand for their distribution under the null hypothesis). Two equal models get p = 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

Floats = npt.NDArray[np.float64]

_BLOCK_ENTRIES = 2**20  # resample counts held at a time: 8 MiB
_ROUNDING = 1e-12  # means of values in [0, 1] that are equal on paper differ by less


def bootstrap_means(values: Floats, n_resamples: int, seed: int) -> Floats:
    """Means of resampled users; all columns see the same resamples, so columns may be subtracted (paired).

    Args:
        values: [U, C] one row per user.
        n_resamples: B.
        seed: of the resampling.

    Returns:
        [B, C] column means of each resample.
    """
    n_users, n_columns = values.shape
    generator = np.random.default_rng(seed)
    means = np.empty((n_resamples, n_columns))
    block = max(1, _BLOCK_ENTRIES // n_users)
    # Beside other work, threads that wait for each other are 4 times as slow as one.
    with threadpool_limits(1, user_api="blas"):
        for start in range(0, n_resamples, block):
            rows = min(block, n_resamples - start)
            drawn = generator.integers(n_users, size=(rows, n_users))
            drawn += np.arange(rows)[:, None] * n_users  # each resample counts into its own range
            counts = np.bincount(drawn.ravel(), minlength=rows * n_users).reshape(rows, n_users)
            means[start : start + rows] = counts.astype(np.float64) @ values / n_users
    return means


def compute_p_value(difference: float, resampled: Floats) -> float:
    """Two-sided p-value of an observed mean difference, as defined at the head of this file.

    Args:
        difference: d.
        resampled: [B] d* of each resample.

    >>> compute_p_value(0.5, np.array([0.5, 0.4, 0.6]))
    0.25
    >>> compute_p_value(0.0, np.array([0.0, 0.0, 0.0]))
    1.0
    """
    extreme = np.abs(resampled - difference) >= abs(difference) - _ROUNDING
    return (1 + int(np.count_nonzero(extreme))) / (1 + len(resampled))


def compute_interval(resampled: Floats, level: float) -> tuple[Floats, Floats]:
    """Lower and upper ends of the percentile interval of resampled means.

    Args:
        resampled: [B, ...] a mean of each resample.
        level: such as 0.95.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def paired_bootstrap(a: Floats, b: Floats, n_resamples: int, seed: int) -> float:
    """Two-sided p-value of the hypothesis that two models do equally well.

    Args:
        a: [U] a metric of the first model for each user.
        b: [U] the same of the second, users in the same order.
        n_resamples: B.
        seed: of the resampling.
    """
    difference = np.asarray(a, dtype=np.float64) - b
    return compute_p_value(float(difference.mean()), bootstrap_means(difference[:, None], n_resamples, seed)[:, 0])


def correct_holm(p_values: Floats) -> Floats:
    """Holm's step-down adjusted p-values: reject those below alpha to keep the family-wise error below alpha.

    The i-th smallest of m (i from 0) becomes the largest of `(m - j) p_(j)` over j <= i, at most 1.

    Args:
        p_values: [m].

    >>> correct_holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * p_values[order])
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
