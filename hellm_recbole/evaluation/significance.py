"""Paired bootstrap over users, and Holm's correction.

Definition. Let `a_u` and `b_u` be a metric of two models for user u, and `d = mean(a_u - b_u)` over the U evaluated
users. A resample draws U users with replacement, the same ones for both models. Its mean difference is `d*`. The
two-sided p-value is

    p = (1 + #{|d* - d| >= |d|}) / (1 + number of resamples)

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 16. The resampled differences, shifted to
mean zero, approximate the distribution of the difference under the null hypothesis. Two equal models have p = 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

Floats = npt.NDArray[np.float64]

_BLOCK_ENTRIES = 2**20  # number of resample counts in memory at one time: 8 MiB
_ROUNDING = 1e-12  # rounding errors of means of values in [0, 1] are smaller than this


def bootstrap_means(values: Floats, n_resamples: int, seed: int) -> Floats:
    """Compute column means over resampled users.

    All columns use the same resamples, so the means of two columns may be subtracted (paired bootstrap).

    Args:
        values: [U, C] one row for each user.
        n_resamples: number of resamples N.
        seed: random seed of the resampling.

    Returns:
        [N, C] column means of each resample.
    """
    n_users, n_columns = values.shape
    generator = np.random.default_rng(seed)
    means = np.empty((n_resamples, n_columns))
    block = max(1, _BLOCK_ENTRIES // n_users)
    # When other processes use the CPU, several BLAS threads wait for each other and are 4 times as slow as one thread.
    with threadpool_limits(1, user_api="blas"):
        for start in range(0, n_resamples, block):
            n_block = min(block, n_resamples - start)
            drawn_users = generator.integers(n_users, size=(n_block, n_users))
            drawn_users += np.arange(n_block)[:, None] * n_users  # each resample has its own range of indices
            counts = np.bincount(drawn_users.ravel(), minlength=n_block * n_users).reshape(n_block, n_users)
            means[start : start + n_block] = counts.astype(np.float64) @ values / n_users
    return means


def compute_p_value(difference: float, resampled: Floats) -> float:
    """Compute the two-sided p-value of an observed mean difference, as defined at the top of this file.

    Args:
        difference: observed mean difference d.
        resampled: [N] mean difference d* of each resample.

    >>> compute_p_value(0.5, np.array([0.5, 0.4, 0.6]))
    0.25
    >>> compute_p_value(0.0, np.array([0.0, 0.0, 0.0]))
    1.0
    """
    extreme = np.abs(resampled - difference) >= abs(difference) - _ROUNDING
    return (1 + int(np.count_nonzero(extreme))) / (1 + len(resampled))


def compute_interval(resampled: Floats, level: float) -> tuple[Floats, Floats]:
    """Compute the percentile interval of resampled means.

    Args:
        resampled: [N, ...] means of each resample.
        level: confidence level in (0, 1), such as 0.95.

    Returns:
        Lower and upper ends of the interval, each with the shape of `resampled` without its first axis.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def correct_holm(p_values: Floats) -> Floats:
    """Adjust p-values by Holm's step-down method.

    Rejecting the hypotheses with an adjusted p-value below alpha keeps the family-wise error rate below alpha. With m
    p-values sorted as p_(0) <= ... <= p_(m-1), the adjusted value of p_(i) is the largest of `(m - j) p_(j)` over
    j <= i, and at most 1.

    Args:
        p_values: [m] raw p-values.

    Returns:
        [m] adjusted p-values, in the order of `p_values`.

    >>> correct_holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * p_values[order])
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
