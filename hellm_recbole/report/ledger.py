"""The ledger: published numbers beside those that were run here, one line for each reference and row.

A number of this project is taken under the masking policy of its source (`Source.choose_policy`), because the ranks are
saved under all policies. Data, split and candidates cannot be changed afterwards: if the source differs in one of them,
or if it chose its settings on the test part, the line is "not comparable". Features and language model are a method's
input: a line names their differences and has a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hellm_recbole.evaluation.significance import bootstrap_means, compute_interval
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.identity.parts import FeatureIdentity
from hellm_recbole.report.claims import ClaimResult, judge_claims
from hellm_recbole.report.frame import ReportFrame
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.references import DatasetStatistics, Kind, Reference, read_statistics, select_references
from hellm_recbole.report.settings import ReportSettings

NOT_RUN = "not run"
_KINDS: tuple[Kind, ...] = ("paper", "released log", "board", "other paper")  # order of the lines


@dataclass(frozen=True)
class Ours:
    """The numbers of a row that was run here, for one metric of a reference.

    Attributes:
        row: label of the row.
        preset: name of the preset of its runs.
        n_seeds: number of seeds that succeeded.
        policy: masking policy of the ranks.
        mean: mean over users and seeds.
        low: lower end of the bootstrap interval of the mean.
        high: upper end of that interval.
    """

    row: str
    preset: str
    n_seeds: int
    policy: Policy
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class LedgerLine:
    """A metric of a reference and of a row that was run here.

    Attributes:
        reference: published numbers.
        metric: metric of the line.
        main: whether this is the metric of the reference that short outputs show.
        ours: numbers of this project; None if the row was not run.
        verdict: "reached", "above", "below by X %", "not comparable: ..." or "not run".
        notes: differences that do not forbid a comparison.
    """

    reference: Reference
    metric: str
    main: bool
    ours: Ours | None
    verdict: str
    notes: tuple[str, ...]

    @property
    def published(self) -> float:
        """Number of the source."""
        return self.reference.metrics[self.metric]

    @property
    def ratio(self) -> float | None:
        """Number of this project as a fraction of the source's; None where the two cannot be compared."""
        comparable = self.ours is not None and not self.verdict.startswith("not") and self.published > 0
        return self.ours.mean / self.published if comparable and self.ours is not None else None


@dataclass(frozen=True)
class Ledger:
    """The content of a ledger, which each output format prints.

    Attributes:
        dataset: name of the dataset.
        lines: lines of all metrics, those of the paper first.
        notes: sentences about the data and the numbers.
        claims: verdicts on the claims of the paper's text.
        claim_note: sentence about the tests of the claims.
    """

    dataset: str
    lines: tuple[LedgerLine, ...]
    notes: tuple[str, ...]
    claims: tuple[ClaimResult, ...]
    claim_note: str


def build_ledger(frame: ReportFrame, settings: ReportSettings, *, metric: str | None = None) -> Ledger:
    """Build the ledger of a dataset.

    Args:
        frame: all runs of the dataset, with variants.
        settings: settings of the bootstrap.
        metric: main metric of a line, if its source has it; None takes `settings.sort_metric`. Otherwise the main
            metric is the last one of the source.

    Raises:
        SettingsError: a file of references or claims is broken.
    """
    first, name = frame.records[0], _name_dataset(frame)
    references = sorted(select_references(dataset=name), key=lambda reference: _KINDS.index(reference.source.kind))
    matched = [(reference, group) for reference in references for group in _find_groups(frame, reference)]
    numbers = _compute_numbers(frame, matched, settings)
    statistics = read_statistics().get(name)
    lines = []
    for reference, group in matched:
        wanted = settings.sort_metric if metric is None else metric
        main = wanted if wanted in reference.metrics else list(reference.metrics)[-1]
        obstacles = _list_obstacles(first, reference, statistics)
        notes = _list_notes(frame, reference, group)
        for key in reference.metrics:
            ours = None if group is None else numbers[_get_key(reference, group, key)]
            verdict = _judge(reference.metrics[key], ours, obstacles)
            lines.append(LedgerLine(reference, key, key == main, ours, verdict, notes))
    notes = (
        (*_write_notes(first, statistics, settings), *_name_other_rows(frame, references))
        if lines
        else (f"No source has numbers of {name}.",)
    )
    claims = judge_claims(frame, settings)
    return Ledger(first.dataset, tuple(lines), notes, claims, _write_claim_note(frame, claims, settings))


def has_references(frame: ReportFrame) -> bool:
    """Return whether a source has numbers of the dataset.

    Raises:
        SettingsError: a file of references is broken.
    """
    return bool(select_references(dataset=_name_dataset(frame)))


def _name_dataset(frame: ReportFrame) -> str:
    """Return the name that the dataset has in the sources: that of the paper if the paper has it."""
    return frame.records[0].paper or frame.records[0].dataset


def _find_groups(frame: ReportFrame, reference: Reference) -> list[Group | None]:
    """Find the finished rows of a reference's model, with any language model, preset and search; None if none is."""
    found = [group for group in frame.groups if group[0].model == reference.row and list_successful(group)]
    return [*found] or [None]


def _get_key(reference: Reference, group: Group, metric: str) -> tuple[str, str, Policy, str]:
    """Return what determines a number: label and preset of the row, masking policy, and metric."""
    return group[0].label, group[0].preset, reference.source.choose_policy(group[0].family), metric


def _compute_numbers(
    frame: ReportFrame, matched: Sequence[tuple[Reference, Group | None]], settings: ReportSettings
) -> dict[tuple[str, str, Policy, str], Ours]:
    """Compute means and intervals of all numbers of the ledger from the same resamples of users.

    Args:
        frame: all runs.
        matched: references with their rows.
        settings: settings of the bootstrap.

    Returns:
        Key of a number (`_get_key`) -> the number.
    """
    groups: dict[tuple[str, str, Policy, str], Group] = {}
    for reference, group in matched:
        if group is not None:
            groups |= {_get_key(reference, group, metric): group for metric in reference.metrics}
    if not groups:
        return {}
    columns = []
    for (_, _, policy, metric), group in groups.items():
        seeds = [frame.compute_per_user(record, policy, [metric])[:, 0] for record in list_successful(group)]
        columns.append(np.mean(seeds, axis=0))
    values = np.stack(columns, axis=1)
    resampled = bootstrap_means(values, settings.n_resamples, settings.bootstrap_seed)
    low, high = compute_interval(resampled, settings.confidence_level)
    return {
        key: Ours(
            row=key[0],
            preset=key[1],
            n_seeds=len(list_successful(group)),
            policy=key[2],
            mean=float(values[:, column].mean()),
            low=float(low[column]),
            high=float(high[column]),
        )
        for column, (key, group) in enumerate(groups.items())
    }


def _judge(published: float, ours: Ours | None, obstacles: Sequence[str]) -> str:
    """Choose the verdict of a line; see `LedgerLine.verdict`."""
    if obstacles:
        return f"not comparable: {'; '.join(obstacles)}"
    if ours is None:
        return NOT_RUN
    if ours.low > published:
        return "above"
    return "reached" if published <= ours.high else f"below by {100 * (1 - ours.mean / published):.1f} %"


def _list_obstacles(record: RunResult, reference: Reference, statistics: DatasetStatistics | None) -> list[str]:
    """List the reasons why a source's numbers cannot be compared with those of a run.

    Args:
        record: any run of the dataset.
        reference: published numbers.
        statistics: statistics of the paper's data; None if the paper does not have the dataset.
    """
    source, counts = reference.source, record.counts
    reasons = []
    if source.split != record.split_kind:
        reasons.append(f"split {source.split}, here {record.split_kind}")
    if source.candidates != "all":
        reasons.append("sampled candidates, here all items")
    if source.selection == "test":
        reasons.append("selected on the test part")
    if statistics is not None and (statistics["users"], statistics["items"]) != (counts["users"], counts["items"]):
        reasons.append(
            f"other data ({statistics['users']:,} users and {statistics['items']:,} items, here {counts['users']:,} "
            f"and {counts['items']:,})"
        )
    return reasons


def _list_notes(frame: ReportFrame, reference: Reference, group: Group | None) -> tuple[str, ...]:
    """List the differences between a source and a row that do not forbid a comparison, and how exact the source is."""
    source = reference.source
    notes = []
    if reference.read_off:
        notes.append("read off a figure")
    if source.selection == "not stated":
        notes.append("selection not stated")
    if source.mask == "seen as zero":
        notes.append("the source sets scores of seen items to 0, here they are masked")
    if group is not None:
        record = list_successful(group)[0]
        differences = [*_compare_language_models(reference, record), *_compare_features(frame, reference, record)]
        notes += [f"differs: {', '.join(differences)}"] if differences else []
    return tuple(notes)


def _compare_language_models(reference: Reference, record: RunResult) -> list[str]:
    """Say which language model a row reads in place of the source's."""
    theirs = reference.source.language_model
    if record.backbone is None or theirs is None or _normalize(theirs) in _normalize(record.backbone):
        return []
    return [f"language model {record.backbone} (source: {theirs})"]


def _normalize(name: str) -> str:
    """Return the letters and digits of a name in lower case.

    >>> _normalize("LLaMA-2-7B") in _normalize("Llama-2-7b-hf")
    True
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _compare_features(frame: ReportFrame, reference: Reference, record: RunResult) -> list[str]:
    """Say which features a row reads in place of the source's, itself or through pretrained embeddings."""
    theirs = reference.source.features
    if not theirs:
        return []
    if record.identity is None:
        return ["features unknown"] if record.modalities else []
    ours = _find_features(frame, record)
    if not ours:
        return []
    differences = []
    for modality, encoder in theirs.items():
        if modality not in ours:
            differences.append(f"no {modality} (source: {encoder})")
        elif _normalize(encoder) not in _normalize(ours[modality] or ""):
            differences.append(f"{modality} by {ours[modality] or 'an unknown encoder'} (source: {encoder})")
    return [*differences, *(f"also {modality}" for modality in ours if modality not in theirs)]


def _find_features(frame: ReportFrame, record: RunResult) -> dict[str, str | None]:
    """Find the encoders of the features that a run depends on: modality -> encoder, None if it is unknown."""
    assert record.identity is not None
    features: dict[str, FeatureIdentity] = dict(record.identity["features"])
    inherited: dict[str, str | None] = {}
    for model, embeddings in record.identity["embeddings"].items():
        inherited |= dict.fromkeys(embeddings["features"] or {}, None)
        for other in frame.records:
            if other.model == model and other.seed == record.seed and other.identity is not None:
                features = {**other.identity["features"], **features}
    return inherited | {modality: identity["encoder"] for modality, identity in features.items()}


def _write_notes(record: RunResult, statistics: DatasetStatistics | None, settings: ReportSettings) -> tuple[str, ...]:
    """Write the sentences below the ledger: what the numbers are, and the data beside the paper's Table 2."""
    notes = [
        "Ours: mean over users and seeds under the masking policy of the source, with its "
        f"{settings.confidence_level:.0%} interval (bootstrap over users, {settings.n_resamples:,} resamples).",
        '"reached": the published number is inside our interval. "above": our interval is above it. "below by": our '
        "interval is below it.",
    ]
    if statistics is not None:
        counts = record.counts
        notes.append(
            f"Table 2 of the paper: {statistics['users']:,} users (here {counts['users']:,}), {statistics['items']:,} "
            f"items (here {counts['items']:,}), {statistics['interactions']:,} interactions of training and test (here "
            f"{counts['train'] + counts['test']:,})."
        )
    return tuple(notes)


def _name_other_rows(frame: ReportFrame, references: Sequence[Reference]) -> list[str]:
    """Name the finished rows of which no source has numbers, if there are any."""
    published = {reference.row for reference in references}
    others = [g[0].label for g in frame.groups if list_successful(g) and g[0].model not in published]
    return [f"No source has numbers of the rows {', '.join(dict.fromkeys(others))}."] if others else []


def _write_claim_note(frame: ReportFrame, claims: Sequence[ClaimResult], settings: ReportSettings) -> str:
    """Say how the claims are tested, or that none could be."""
    n_tested = sum(not claim.missing for claim in claims)
    if n_tested == 0:
        return "No claim could be tested."
    return (
        f"Mask policy {frame.mask_policy} for every row. Paired bootstrap over users; p is Holm-corrected over the "
        f"{n_tested} {'claim' if n_tested == 1 else 'claims'} that could be tested, and a verdict needs p < "
        f"{settings.significance_level:g}. In parentheses: {settings.confidence_level:.0%} interval of the difference."
    )
