"""How far the best row with a language model is from the best row without one.

A row has a language model if it trains one or reads features that one has made, or if it combines rows of which one
does. Rows are compared as they are, without priors (and without the rows that are priors alone), and with the same
priors on both sides: `<Row>-priors` against `<Row>-priors`. Rows with directed transitions take no part on either
side, because these profit from the order in which a file lists interactions at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hellm_recbole.config.row_names import parse_combined_name
from hellm_recbole.evaluation.significance import bootstrap_means, compute_interval, compute_p_value
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.models.base import LLM, Family
from hellm_recbole.report.frame import Floats, ReportFrame
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.settings import ReportSettings

PRIORS, DIRECTED = "-priors", "-directed"  # ends of the names of rows with priors, and with directed transitions
_LANGUAGE_MODEL = "_llm"  # end of the names of modalities that language models have made
_SCOPES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("", lambda model: True),
    (" (no priors)", lambda model: PRIORS not in model and model not in ("Priors", "Transitions")),
    (" (same priors)", lambda model: model.endswith(PRIORS)),
)


def find_language_models(records: Sequence[RunResult]) -> set[str]:
    """Return the labels of the rows that have a language model.

    Args:
        records: run results, at least those of the rows that combined rows consist of.
    """
    models = {record.model for record in records if _reads_language_model(record)}
    return {record.label for record in records if models & {record.model, *_split_name(record.model)}}


def _reads_language_model(record: RunResult) -> bool:
    """Return whether a run trains a language model or reads features that one has made."""
    features = {} if record.identity is None else record.identity["features"]
    made = any(name.endswith(_LANGUAGE_MODEL) or "encoding" in origin for name, origin in features.items())
    return record.family == LLM or record.backbone is not None or made


def _split_name(model: str) -> list[str]:
    """Return the names of the rows that a row combines, or its own name.

    >>> _split_name("Fusion(SASRec-priors,HeLLM-plus)-priors-directed")
    ['SASRec', 'HeLLM-plus']
    """
    combined = parse_combined_name(model)
    return [model] if combined is None else [name for row in combined.rows for name in _split_name(row)]


def write_distance_notes(
    frame: ReportFrame, policies: Mapping[Family, Policy], sort_metric: str, settings: ReportSettings
) -> list[str]:
    """Write the sentences on the distance of the best row with a language model from the best row without one.

    There are none if the families have different masks, or if one of the two kinds of rows is missing. External rows
    are of neither kind, because nobody knows what they read.

    Args:
        frame: runs of the table.
        policies: masking policy of each family under the protocol of the table.
        sort_metric: metric by which the best rows are chosen.
        settings: settings of the report.
    """
    if len(set(policies.values())) > 1:
        return []
    names = [sort_metric, *(f"{kind}@{settings.distance_cutoff}" for kind in "RN")]
    candidates = [group for group in frame.groups if list_successful(group) and DIRECTED not in group[0].model]
    groups = [group for group in candidates if group[0].external is None]
    values = [_average(frame, group, policies, names) for group in groups]
    pairs = _choose_pairs(groups, [float(per_user[:, 0].mean()) for per_user in values], frame.records)
    if not pairs:
        return []
    rows = sorted({index for pair in pairs for index in pair})
    stacked = np.stack([values[index][:, 1:] for index in rows], axis=1)  # [U, R, 2]
    resampled = bootstrap_means(stacked.reshape(len(stacked), -1), settings.n_resamples, settings.bootstrap_seed)
    resampled = resampled.reshape(-1, *stacked.shape[1:])  # [N, R, 2]
    means = stacked.mean(axis=0)
    notes = []
    for pair, scope in pairs.items():
        a, b = (rows.index(index) for index in pair)
        parts = [
            f"{name} {_describe_difference(difference, draws, settings)}"
            for name, difference, draws in zip(
                names[1:], means[a] - means[b], (resampled[:, a] - resampled[:, b]).T, strict=True
            )
        ]
        first, second = (_name_group(groups[index], frame) for index in pair)
        notes.append(
            f"Best row with a language model{scope}, {first}, minus best row without a language model{scope}, "
            f"{second}: {', '.join(parts)}."
        )
    how = f"{settings.n_resamples:,} paired resamples of users, p not corrected"
    return [*notes, f"Best is highest in {sort_metric} on the test part; {how}."]


def _choose_pairs(
    groups: Sequence[Group], scores: Sequence[float], records: Sequence[RunResult]
) -> dict[tuple[int, int], str]:
    """Choose the best row with and the best row without a language model, for each way of comparing them.

    Args:
        groups: groups of runs that may be chosen.
        scores: metric of each group.
        records: all run results of the table.

    Returns:
        Indices of the two groups -> what is said of both rows; a pair is named once.
    """
    with_model = find_language_models(records)
    pairs: dict[tuple[int, int], str] = {}
    for scope, is_inside in _SCOPES:
        inside = [index for index, group in enumerate(groups) if is_inside(group[0].model)]
        sides = [
            [index for index in inside if (groups[index][0].label in with_model) == side] for side in (True, False)
        ]
        if all(sides):
            first, second = (max(side, key=scores.__getitem__) for side in sides)
            pairs.setdefault((first, second), scope)
    return pairs


def _average(frame: ReportFrame, group: Group, policies: Mapping[Family, Policy], names: Sequence[str]) -> Floats:
    """Average metrics of each user over the successful runs of a group: [U, M]."""
    seeds = [frame.compute_per_user(record, policies[record.family], names) for record in list_successful(group)]
    mean: Floats = np.mean(seeds, axis=0)
    return mean


def _describe_difference(difference: float, resampled: Floats, settings: ReportSettings) -> str:
    """Describe a difference of means with its interval and its p-value.

    Args:
        difference: observed difference.
        resampled: [N] difference of each resample.
        settings: settings of the bootstrap.
    """
    low, high = compute_interval(resampled, settings.confidence_level)
    p = compute_p_value(difference, resampled)
    level = f"{100 * settings.confidence_level:g}%"
    return f"{difference:+.4f} ({level} interval {low:+.4f} to {high:+.4f}, p = {p:.2g})"


def _name_group(group: Group, frame: ReportFrame) -> str:
    """Return the label of a row, with its preset if the rows have several, and its number of seeds if that differs."""
    details = []
    if len({record.preset for record in frame.records if record.external is None}) > 1:
        details.append(group[0].preset)
    counts = {len(found) for other in frame.groups if (found := list_successful(other))}
    if len(counts) > 1:
        n_seeds = len(list_successful(group))
        details.append(f"{n_seeds} seed{'' if n_seeds == 1 else 's'}")
    return group[0].label + (f" ({', '.join(details)})" if details else "")
