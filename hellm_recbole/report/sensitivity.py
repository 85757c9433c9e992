"""How far numbers move if one rule of the evaluation is another one: mask, ties of scores, order of ties in time.

Each line of the table changes one rule and keeps all others. Its change is the mean difference over users from the line
with the usual rules, with a percentile interval of the paired bootstrap: the same users are resampled on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hellm_recbole.evaluation.significance import Floats, bootstrap_means, compute_interval
from hellm_recbole.report.settings import ReportSettings

USUAL = "usual rules"


@dataclass(frozen=True)
class Measured:
    """Metrics of one row under one changed rule.

    Attributes:
        rule: what is changed, such as "mask" or "ties".
        choice: what it is changed to.
        per_user: [U, M] metrics of each user, averaged over repetitions.
        repetition_means: [N, M] means of each repetition, where there are several; they give the standard deviation.
    """

    rule: str
    choice: str
    per_user: Floats
    repetition_means: Floats | None = None


@dataclass(frozen=True)
class Change:
    """One metric under a changed rule.

    Attributes:
        mean: mean over users.
        sd: standard deviation over repetitions (n - 1 in the denominator); None without several.
        change: difference from the mean under the usual rules.
        low: lower end of the interval of the change.
        high: upper end of that interval.
    """

    mean: float
    sd: float | None
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class SensitivityLine:
    """One line of the table.

    Attributes:
        model: label of the row.
        rule: what is changed.
        choice: what it is changed to.
        usual: metric -> mean under the usual rules.
        changes: metric -> its change.
    """

    model: str
    rule: str
    choice: str
    usual: Mapping[str, float]
    changes: Mapping[str, Change]


@dataclass(frozen=True)
class Sensitivity:
    """The content of a table of sensitivity.

    Attributes:
        metrics: names of the metrics.
        lines: lines, by row.
        notes: sentences of the caption.
    """

    metrics: tuple[str, ...]
    lines: tuple[SensitivityLine, ...]
    notes: tuple[str, ...] = field(default=())


def compare_rules(
    model: str, usual: Floats, measured: Sequence[Measured], names: Sequence[str], settings: ReportSettings
) -> list[SensitivityLine]:
    """Compare a row under changed rules with the same row under the usual ones.

    Args:
        model: label of the row.
        usual: [U, M] metrics of each user under the usual rules.
        measured: the same metrics of the same users under each changed rule.
        names: names of the M metrics.
        settings: settings of the bootstrap.
    """
    if not measured:
        return []
    differences = np.concatenate([one.per_user - usual for one in measured], axis=1)
    resampled = bootstrap_means(differences, settings.n_resamples, settings.bootstrap_seed)
    low, high = compute_interval(resampled, settings.confidence_level)
    means = dict(zip(names, usual.mean(axis=0).tolist(), strict=True))
    lines = []
    for index, one in enumerate(measured):
        changes = {}
        for column, name in enumerate(names):
            at = index * len(names) + column
            repeated = one.repetition_means
            changes[name] = Change(
                mean=float(one.per_user[:, column].mean()),
                sd=float(repeated[:, column].std(ddof=1)) if repeated is not None and len(repeated) > 1 else None,
                change=float(differences[:, at].mean()),
                low=float(low[at]),
                high=float(high[at]),
            )
        lines.append(SensitivityLine(model, one.rule, one.choice, means, changes))
    return lines


def write_notes(dataset: str, split: str, seeds: Sequence[int], settings: ReportSettings) -> list[str]:
    """Write the sentences of the caption that hold for every table of sensitivity.

    Args:
        dataset: name of the dataset.
        split: kind of the split, with the first digits of its hash.
        seeds: random seeds of the runs.
        settings: settings of the bootstrap.
    """
    return [
        f"{dataset}, test part, split {split}, {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}. "
        "Usual rules: history masked (mask seen), ties of scores against the model (pessimistic), ties in time in the "
        "order of the source.",
        f"Change: difference from the usual rules with its {settings.confidence_level:.0%} interval; paired bootstrap "
        f"over users ({settings.n_resamples:,} resamples, seed {settings.bootstrap_seed}).",
    ]
