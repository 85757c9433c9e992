"""Comparisons of the rows of a table: each row with the best other row of a column, or with one chosen row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hellm_recbole.config.comparison import Comparison, PairedTest
from hellm_recbole.errors import SettingsError, shorten
from hellm_recbole.evaluation.paired_tests import (
    compute_effect_size,
    compute_randomisation_p,
    compute_t_p,
    compute_wilcoxon_p,
    correct_p_values,
)
from hellm_recbole.evaluation.significance import compute_interval, compute_p_value
from hellm_recbole.report.groups import Group
from hellm_recbole.report.settings import ReportSettings

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

NO_RIVAL = -1
_CORRECTIONS = {"holm": "Holm-corrected", "bh": "Benjamini-Hochberg-corrected", "none": "not corrected"}
_MOST_NAMED = 8  # number of rows that a message names


@dataclass(frozen=True)
class CellComparison:
    """A row compared with its rival in one metric.

    Attributes:
        rival: name of the row that it is compared with.
        difference: mean over users of this row minus the rival.
        low: lower end of the bootstrap interval of the difference, not corrected.
        high: upper end of that interval.
        relative: the difference as a fraction of the rival's mean; None where that is 0.
        effect_size: Cohen's d_z of the differences of the users; None where their standard deviation is 0 or unknown.
        p: test -> corrected p-value; None where the test has none.
    """

    rival: str
    difference: float
    low: float
    high: float
    relative: float | None
    effect_size: float | None
    p: Mapping[PairedTest, float | None]


@dataclass(frozen=True)
class ComparedRows:
    """All comparisons of R rows in M metrics.

    Attributes:
        rivals: [R, M] row that each row is compared with, `NO_RIVAL` where there is none.
        p: test -> [R, M] corrected p-values; NaN where there is no rival.
    """

    rivals: Indices
    p: Mapping[PairedTest, Floats]


def find_chosen_row(groups: Sequence[Group], comparison: Comparison | None) -> int | None:
    """Find the row that all others are compared with.

    Args:
        groups: finished runs of each row that can be chosen.
        comparison: how the rows are compared. It names a row of the table, or a model that has one row; with several
            presets `NAME (PRESET)`.

    Returns:
        Index into `groups`; None if no row is named.

    Raises:
        SettingsError: there is no such row, or there are several.
    """
    name = None if comparison is None else comparison.against
    if name is None:
        return None
    names = [(g[0].label, g[0].model, f"{g[0].label} ({g[0].preset})") for g in groups]
    for position in (0, 2, 1):
        found = [index for index, each in enumerate(names) if each[position] == name]
        if len(found) == 1:
            return found[0]
        if found:
            shown = " or ".join(f"'{names[index][2]}'" for index in found)
            raise SettingsError(f"--against {shorten(name)}: several rows have this name; name one of them as {shown}")
    shown = ", ".join(label for label, *_ in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    raise SettingsError(
        f"--against {shorten(name)}: the table has no finished row of this name; it has {shown or 'none'}{more}"
    )


def name_rows(groups: Sequence[Group]) -> list[str]:
    """Name the rows of a table, with their preset if the rows have several."""
    several = len({group[0].preset for group in groups}) > 1
    return [f"{group[0].label} ({group[0].preset})" if several else group[0].label for group in groups]


def compare_rows(
    values: Floats, resampled: Floats, comparison: Comparison, against: int | None, settings: ReportSettings
) -> ComparedRows:
    """Compare the rows of a table.

    Without a chosen row, the rival of a row is the best other row. For all rows except the best one, that is the best
    row. The test of the best row is the same as that of its rival, so it is counted once.

    Args:
        values: [U, R, M] metrics of each user.
        resampled: [N, R, M] means of each resample.
        comparison: how the rows are compared.
        against: row that all others are compared with; None for the best other row of each column.
        settings: settings of the resampling.
    """
    means = values.mean(axis=0)
    n_rows, n_metrics = means.shape
    best = means.argmax(axis=0) if against is None else np.full(n_metrics, against)
    rivals = np.where(np.arange(n_rows)[:, None] == best, NO_RIVAL, best)
    pairs = np.argwhere(rivals != NO_RIVAL)  # [P, 2] row and column of each comparison
    seconds = np.where(np.arange(n_rows)[:, None] == best, -np.inf, means).argmax(axis=0)  # best other row of a column
    columns = np.arange(n_metrics)
    p: dict[PairedTest, Floats] = {}
    for test in comparison.tests:
        p[test] = np.full(means.shape, np.nan)
        if len(pairs):
            raw = _test_pairs(test, values, resampled, pairs, rivals, settings)
            p[test][tuple(pairs.T)] = correct_p_values(raw, comparison.correction)
            if against is None:
                p[test][best, columns] = p[test][seconds, columns]
    if against is None and n_rows > 1:
        rivals[best, columns] = seconds
    return ComparedRows(rivals, p)


def _test_pairs(
    test: PairedTest,
    values: Floats,
    resampled: Floats,
    pairs: Indices,
    rivals: Indices,
    settings: ReportSettings,
) -> Floats:
    """Test P rows against their rivals; arguments as in `compare_rows`. Returns [P] raw p-values."""
    rows, columns = pairs.T
    others = rivals[rows, columns]
    if test == "bootstrap":
        means = values.mean(axis=0)
        return np.array(
            [
                compute_p_value(means[a, m] - means[b, m], resampled[:, a, m] - resampled[:, b, m])
                for a, b, m in zip(rows, others, columns, strict=True)
            ]
        )
    differences = values[:, rows, columns] - values[:, others, columns]  # [U, P]
    if test == "randomisation":
        return compute_randomisation_p(differences, settings.n_resamples, settings.bootstrap_seed)
    return compute_wilcoxon_p(differences) if test == "wilcoxon" else compute_t_p(differences)


def describe_pair(
    values: Floats, resampled: Floats, compared: ComparedRows, row: int, column: int, label: str, level: float
) -> CellComparison:
    """Describe the comparison of one row with its rival in one metric, which must have one.

    Args:
        values: [U, R, M] metrics of each user.
        resampled: [N, R, M] means of each resample.
        compared: all comparisons.
        row: index of the row.
        column: index of the metric.
        label: name of the rival.
        level: confidence level of the interval.
    """
    rival = compared.rivals[row, column]
    differences = values[:, row, column] - values[:, rival, column]
    low, high = compute_interval(resampled[:, row, column] - resampled[:, rival, column], level)
    difference, base = float(differences.mean()), float(values[:, rival, column].mean())
    return CellComparison(
        rival=label,
        difference=difference,
        low=float(low),
        high=float(high),
        relative=difference / base if base else None,
        effect_size=to_known(compute_effect_size(differences[:, None])[0]),
        p={test: to_known(p[row, column]) for test, p in compared.p.items()},
    )


def to_known(value: float) -> float | None:
    """Return a number as a float, and None for NaN."""
    return None if np.isnan(value) else float(value)


def describe_tests(comparison: Comparison, settings: ReportSettings) -> str:
    """Describe the test that decides where there is a star, as in a caption."""
    drawn = f"{settings.n_resamples:,} resamples, seed {settings.bootstrap_seed}; "
    averaged = "values are averaged over seeds first"
    return {
        "bootstrap": f"two-sided paired bootstrap over users ({drawn}{averaged})",
        "randomisation": f"two-sided paired randomisation test over users ({drawn}{averaged})",
        "wilcoxon": f"two-sided Wilcoxon signed-rank test over users (zero differences left out; {averaged})",
        "t": f"two-sided paired t-test over users ({averaged})",
    }[comparison.tests[0]]


def describe_correction(comparison: Comparison, n_tests: int) -> str:
    """Say how p-values are corrected, and how many there are.

    >>> describe_correction(Comparison(), 12), describe_correction(Comparison(correction="none"), 1)
    ('Holm-corrected over the 12 comparisons', 'not corrected for the 1 comparison')
    """
    link = "for" if comparison.correction == "none" else "over"
    return f"{_CORRECTIONS[comparison.correction]} {link} the {n_tests} comparison{'' if n_tests == 1 else 's'}"


def list_csv_columns(comparison: Comparison, metric: str, compared: CellComparison | None) -> dict[str, object]:
    """List the columns that the comparisons of one metric add to a line of a CSV file: column -> value.

    `<metric>_rival` names the row that this one is compared with. `<metric>_difference` is this row minus that one,
    `..._low` and `..._high` are the ends of its interval, and `<metric>_relative` is the difference as a fraction of
    the rival. `<metric>_effect_size` is Cohen's d_z. `<metric>_p_<test>` is the p-value of each further test.

    Args:
        comparison: how the rows are compared.
        metric: name of the metric.
        compared: comparison of the row; None if it has none.
    """
    names = ("rival", "difference", "difference_low", "difference_high", "relative", "effect_size")
    values: list[object] = [None] * len(names)
    if compared is not None:
        values = [compared.rival, compared.difference, compared.low, compared.high]
        values += [compared.relative, compared.effect_size]
    line = {f"{metric}_{name}": value for name, value in zip(names, values, strict=True)}
    return line | {f"{metric}_p_{test}": compared and compared.p[test] for test in comparison.tests[1:]}
