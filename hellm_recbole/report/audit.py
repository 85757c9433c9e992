"""What a modality brings: rows with changed features against the row with true features, from the report's frame.

A row with changed features (`experiments/changed_features.py`) has the settings of its model. It is compared with the
runs of its model that have the same preset, language model and seeds. The main table leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hellm_recbole.config.changed_names import ChangedName
from hellm_recbole.evaluation.metrics import FloatVector
from hellm_recbole.experiments.changed_features import SETTING, find_recorded_change
from hellm_recbole.experiments.results import label_run, list_result_parts
from hellm_recbole.identity import compare
from hellm_recbole.report.frame import ReportFrame, name_metrics
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.relative_changes import RelativeChange, compare_columns
from hellm_recbole.report.settings import ReportSettings

Verdict = Literal["worse", "better", "costs nothing", "undecided"]
_USELESS = {
    "shuffled": "no use of which item has which features can be measured",
    "zero": "no loss without these features can be measured",
    "noise": "no difference between these features and noise can be measured",
}


@dataclass(frozen=True)
class AuditRow:
    """A model with true features, or with changed ones.

    Attributes:
        model: label of the row.
        preset: name of the preset of its runs.
        change: what was changed; None for the row with true features.
        seeds: seeds of the means; only those that the row with true features has, too, if there are any.
        means: metric -> mean over users and seeds.
        changes: metric -> change against the row with true features; empty for that row itself, and where it has no
            run of the same seed.
        verdict: worse if a metric is significantly worse, better if none is and one is significantly better. Otherwise
            `costs nothing` needs intervals with 0 in them, which are not corrected: a correction makes a difference
            harder to see, and this is a claim that there is none. None without changes.
        features_sha256: changed modality -> digest of its features in the first run.
    """

    model: str
    preset: str
    change: ChangedName | None
    seeds: tuple[int, ...]
    means: Mapping[str, float]
    changes: Mapping[str, RelativeChange]
    verdict: Verdict | None
    features_sha256: Mapping[str, str]


@dataclass(frozen=True)
class Audit:
    """The content of an audit table, which each output format prints.

    Attributes:
        rows: each model with changed features: the row with true features first, if it has finished.
        metrics: metrics that are compared, those of the largest K.
        findings: sentences on the changes that cost nothing, and on what the others cost.
        note: what the numbers are, without a full stop.
        footnotes: differences between a row and its model besides the features, without full stops.
        level: significance level of the stars.
    """

    rows: tuple[AuditRow, ...]
    metrics: tuple[str, ...]
    findings: tuple[str, ...]
    note: str
    footnotes: tuple[str, ...]
    level: float


def build_audit(frame: ReportFrame, settings: ReportSettings, *, cutoffs: Sequence[int] | None = None) -> Audit | None:
    """Build the audit table of all models that have a finished row with changed features; None if there is no such row.

    Args:
        frame: all runs of a dataset.
        settings: settings of the bootstrap and of the significance level.
        cutoffs: cut-offs K; None takes those of the runs. Metrics are compared at the largest one.
    """
    finished = {_identify(group): group for group in frame.groups if list_successful(group)}
    changed: dict[tuple[str, str], list[Group]] = {}
    for group in finished.values():
        if (change := find_recorded_change(group[0])) is not None:
            key = label_run(change.row, group[0].backbone), group[0].preset
            changed.setdefault(key, []).append(group)
    if not changed:
        return None
    metrics = name_metrics([max(frame.choose_cutoffs(cutoffs))])
    rows: list[AuditRow] = []
    footnotes: list[str] = []
    for key, groups in changed.items():
        rows += _build_rows(frame, finished.get(key), groups, metrics, settings)
        footnotes += [note for group in groups if (note := _note_differences(finished.get(key), group)) is not None]
    return Audit(
        rows=tuple(rows),
        metrics=metrics,
        findings=_write_findings(rows, metrics),
        note=_write_note(frame, settings),
        footnotes=tuple(footnotes),
        level=settings.significance_level,
    )


def _identify(group: Group) -> tuple[str, str]:
    """Return label and preset of a group."""
    return group[0].label, group[0].preset


def _build_rows(
    frame: ReportFrame, whole: Group | None, groups: Sequence[Group], metrics: Sequence[str], settings: ReportSettings
) -> list[AuditRow]:
    """Build the rows of one model.

    Args:
        frame: all runs.
        whole: runs with true features; None if none has succeeded.
        groups: runs with changed features, one group for each change.
        metrics: metrics to compare.
        settings: settings of the bootstrap and of the significance level.
    """
    references: list[FloatVector] = []
    others: list[FloatVector] = []
    compared: list[Group] = []
    for group in groups:
        seeds = {record.seed for record in list_successful(group)} & _list_seeds(whole)
        if whole is not None and seeds:
            pair = [frame.average_seeds(_select_seeds(part, seeds), metrics) for part in (whole, group)]
            references += list(pair[0].T)
            others += list(pair[1].T)
            compared.append(group)
    found = compare_columns(references, others, settings) if compared else []
    changes = {
        _identify(group): dict(zip(metrics, found[start : start + len(metrics)], strict=True))
        for group, start in zip(compared, range(0, len(found), len(metrics)), strict=True)
    }
    every = [*([] if whole is None else [whole]), *groups]
    return [_build_row(frame, whole, group, metrics, changes.get(_identify(group), {}), settings) for group in every]


def _list_seeds(group: Group | None) -> set[int]:
    """List the seeds of the successful runs of a group."""
    return set() if group is None else {record.seed for record in list_successful(group)}


def _select_seeds(group: Group, seeds: set[int]) -> Group:
    """Select the runs of some seeds."""
    return [record for record in group if record.seed in seeds]


def _build_row(
    frame: ReportFrame,
    whole: Group | None,
    group: Group,
    metrics: Sequence[str],
    changes: Mapping[str, RelativeChange],
    settings: ReportSettings,
) -> AuditRow:
    """Build one row; the arguments are those of `_build_rows`, and the changes of the row."""
    change = find_recorded_change(group[0])
    shared = _list_seeds(group) & _list_seeds(whole)
    runs = _select_seeds(list_successful(group), shared or _list_seeds(group))
    identity = runs[0].identity
    digests = {} if identity is None else {name: part["sha256"] for name, part in identity["features"].items()}
    return AuditRow(
        model=group[0].label,
        preset=group[0].preset,
        change=change,
        seeds=tuple(record.seed for record in runs),
        means=dict(zip(metrics, map(float, frame.average_seeds(runs, metrics).mean(axis=0)), strict=True)),
        changes=changes,
        verdict=_judge(changes, settings.significance_level) if changes else None,
        features_sha256={k: v for k, v in digests.items() if change is None or change.modality in (None, k)},
    )


def _judge(changes: Mapping[str, RelativeChange], level: float) -> Verdict:
    """Judge the changes of a row."""
    significant = [found.change or 0.0 for found in changes.values() if found.p < level]
    if any(value < 0 for value in significant):
        return "worse"
    if any(value > 0 for value in significant):
        return "better"
    includes_zero = [(found.low or 0.0) <= 0 <= (found.high or 0.0) for found in changes.values()]
    return "costs nothing" if all(includes_zero) else "undecided"


def _write_findings(rows: Sequence[AuditRow], metrics: Sequence[str]) -> tuple[str, ...]:
    """Say of each change whether it costs something: first those that cost nothing."""
    free, others = [], []
    for row in rows:
        if row.change is None or row.verdict is None:
            continue
        numbers = "; ".join(f"{name} {_describe(row.changes[name])}" for name in metrics)
        subject = f"{label_run(row.change.row, row.model.partition('@')[2] or None)}: {row.change.what}"
        if row.verdict == "worse":
            others.append(f"{subject} costs accuracy ({numbers}).")
        elif row.verdict == "better":
            free.append(f"{subject} helps ({numbers}).")
        elif row.verdict == "undecided":
            others.append(f"{subject}: undecided, an interval leaves out 0 but no corrected p is small ({numbers}).")
        else:
            free.append(f"{subject} costs nothing measurable ({numbers}): {_USELESS[row.change.change]}.")
    return (*free, *others)


def _describe(found: RelativeChange) -> str:
    """Describe a change with its interval and its p-value."""
    if found.change is None or found.low is None or found.high is None:
        return f"of the model is 0, p = {found.p:.4f}"
    return f"{found.change:+.1%}, interval {found.low:+.1%} to {found.high:+.1%}, p = {found.p:.4f}"


def _write_note(frame: ReportFrame, settings: ReportSettings) -> str:
    """Say what the numbers of the table are."""
    return (
        f"{frame.records[0].dataset}, test part, mask policy {frame.mask_policy}. Changes in percent of the mean of "
        f"the row with true features, with their {settings.confidence_level:.0%} intervals: paired bootstrap over "
        f"users ({settings.n_resamples:,} resamples) of the same seeds, two-sided p Holm-corrected over all changes "
        f"and metrics of a model; * p below {settings.significance_level:g}. The spread over other seeds is not in it"
    )


def _note_differences(whole: Group | None, group: Group) -> str | None:
    """Say how a row differs from its model besides the features; None if it does not, or if that is unknown."""
    if whole is None:
        return f"{group[0].label}: there is no finished run with true features, so nothing is compared"
    by_seed = {record.seed: record for record in list_successful(whole)}
    for record in list_successful(group):
        other = by_seed.get(record.seed)
        parts = [None if one is None else list_result_parts(one) for one in (other, record)]
        if parts[0] is None or parts[1] is None:
            continue
        skipped = (f"{compare.SETTING}{SETTING}", "features of ")
        a, b = ({key: value for key, value in part.items() if not key.startswith(skipped)} for part in parts if part)
        if differing := sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key)):
            return f"{record.label} differs from {by_seed[record.seed].label} in {compare.list_names(differing)}, too"
    missing = sorted(_list_seeds(group) - _list_seeds(whole))
    if missing:
        return (
            f"{group[0].label}: {whole[0].label} has no run of seed {', '.join(map(str, missing))}, which is left out"
        )
    return None
