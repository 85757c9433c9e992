"""Paired tests over users besides the bootstrap, an effect size, and corrections for several comparisons.

Let `d_u` be the difference of two models in a metric for user u, and `d` its mean over the U evaluated users. All tests
are two-sided; two equal models have p = 1.

- **Randomisation** (sign flips): under the null hypothesis the two models could be exchanged for each user, so that the
  sign of each `d_u` is random. With N random assignments of signs and their mean differences `d*`,
  `p = (1 + #{|d*| >= |d|}) / (1 + N)`. Source: Smucker, Allan and Carterette, CIKM 2007.
- **Wilcoxon**: the signed-rank test. Zero differences are left out, as Wilcoxon did; ties of `|d_u|` get mean ranks.
- **t**: the paired t-test, `t = d / (sd / sqrt(U))` with U - 1 degrees of freedom.

The effect size is Cohen's `d_z = d / sd`, where `sd` is the standard deviation of `d_u` with U - 1 in the denominator.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from hellm_recbole.config.comparison import Correction
from hellm_recbole.evaluation.significance import Floats, correct_holm

_BLOCK_ENTRIES = 2**20  # number of random signs in memory at one time: 8 MiB
_ROUNDING = 1e-12  # rounding errors of means of values in [0, 1] are smaller than this
_DIGITS = 12  # decimals of a difference: equal differences of averages over seeds may differ after these


def compute_randomisation_p(differences: Floats, n_resamples: int, seed: int) -> Floats:
    """Compute the p-values of the randomisation test.

    All columns have the same random signs.

    Args:
        differences: [U, C] difference of each user.
        n_resamples: number of random assignments of signs, N.
        seed: random seed of the signs.

    Returns:
        [C] p-values.
    """
    n_users, n_columns = differences.shape
    generator = np.random.default_rng(seed)
    total, extreme = differences.sum(axis=0), np.zeros(n_columns, dtype=np.int64)
    block = max(1, _BLOCK_ENTRIES // n_users)
    with threadpool_limits(1, user_api="blas"):  # see `significance.bootstrap_means`
        for start in range(0, n_resamples, block):
            is_positive = generator.integers(2, size=(min(block, n_resamples - start), n_users), dtype=np.int8)
            means = (2 * (is_positive.astype(np.float64) @ differences) - total) / n_users
            extreme += np.count_nonzero(np.abs(means) >= np.abs(total / n_users) - _ROUNDING, axis=0)
    p: Floats = (1 + extreme) / (1 + n_resamples)
    return p


def compute_wilcoxon_p(differences: Floats) -> Floats:
    """Compute the p-values of Wilcoxon's signed-rank test.

    They are those of SciPy: exact for few differences without zeros and ties, otherwise from the normal approximation.

    Args:
        differences: [U, C] difference of each user.

    Returns:
        [C] p-values.

    >>> compute_wilcoxon_p(np.array([[0.1, 0.0], [0.2, 0.0], [0.4, 0.0]])).tolist()
    [0.25, 1.0]
    """
    from scipy import stats  # here, because loading it takes longer than most tables

    rounded = np.round(differences, _DIGITS)
    return np.array([stats.wilcoxon(column).pvalue if column.any() else 1.0 for column in rounded.T])


def compute_t_p(differences: Floats) -> Floats:
    """Compute the p-values of the paired t-test.

    Args:
        differences: [U, C] difference of each user.

    Returns:
        [C] p-values. One user has no standard deviation, so its p-value is NaN. Equal differences other than 0 have
        the standard deviation 0, so their p-value is 0.

    >>> compute_t_p(np.array([[0.1, 0.0, 0.5], [0.3, 0.0, 0.5]])).round(4).tolist()
    [0.2952, 1.0, 0.0]
    """
    from scipy import stats

    n_users = len(differences)
    mean, sd = _summarize(differences)
    with np.errstate(divide="ignore", invalid="ignore"):
        p: Floats = 2 * stats.t.sf(np.abs(mean) / (sd / np.sqrt(n_users)), n_users - 1)
    return np.where((mean == 0) & (sd == 0), 1.0, p)


def compute_effect_size(differences: Floats) -> Floats:
    """Compute Cohen's d_z, the mean difference in units of the standard deviation of the differences.

    Args:
        differences: [U, C] difference of each user.

    Returns:
        [C] effect sizes; NaN where the standard deviation is 0 or, for one user, unknown.

    >>> compute_effect_size(np.array([[0.0, 0.2], [1.0, 0.2]])).round(4).tolist()
    [0.7071, nan]
    """
    mean, sd = _summarize(differences)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sd > 0, mean / sd, np.nan)


def _summarize(differences: Floats) -> tuple[Floats, Floats]:
    """Compute mean and standard deviation of each column; equal values have the standard deviation 0 exactly.

    Args:
        differences: [U, C] difference of each user.

    Returns:
        [C] means and [C] standard deviations, NaN for one user.
    """
    rounded = np.round(differences, _DIGITS)
    if len(rounded) < 2:
        return rounded.mean(axis=0), np.full(rounded.shape[1], np.nan)
    is_constant = (rounded == rounded[0]).all(axis=0)
    return rounded.mean(axis=0), np.where(is_constant, 0.0, rounded.std(axis=0, ddof=1))


def correct_p_values(p_values: Floats, correction: Correction) -> Floats:
    """Correct p-values for their number.

    `holm` keeps the family-wise error rate (see `significance.correct_holm`). `bh` keeps the false discovery rate: with
    m p-values sorted as p_(1) <= ... <= p_(m), the corrected value of p_(i) is the smallest of `m p_(j) / j` over
    j >= i, and at most 1 (Benjamini and Hochberg, 1995). `none` leaves them as they are.

    Args:
        p_values: [m] raw p-values; NaN is not counted and stays NaN.
        correction: `holm`, `bh` or `none`.

    Returns:
        [m] corrected p-values, in the order of `p_values`.

    >>> correct_p_values(np.array([0.01, 0.04, np.nan, 0.03]), "bh").round(2).tolist()
    [0.03, 0.04, nan, 0.04]
    """
    corrected, known = p_values.copy(), ~np.isnan(p_values)
    if correction == "holm":
        corrected[known] = correct_holm(p_values[known])
    elif correction == "bh" and known.any():
        from scipy import stats

        corrected[known] = stats.false_discovery_control(p_values[known], method="bh")
    return corrected
