"""Footnotes of combined rows: what they combine, how their weights were searched, and which rows they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hellm_recbole.config.harness_settings import NEUTRAL_KEYS
from hellm_recbole.experiments.results import Combination, RunResult, digest_run
from hellm_recbole.report.groups import Group


def find_combinations(groups: Sequence[Group]) -> Iterator[tuple[int, str]]:
    """Find rows that combine other rows or priors, and those whose rows are missing or have been run again since.

    Args:
        groups: successful runs of each row.

    Yields:
        Index of a row, and a statement about it.
    """
    current = {(record.label, record.seed): record for group in groups for record in group}
    for row, group in enumerate(groups):
        for record in group:
            if record.combination is None:
                continue
            yield row, describe_combination(record.combination, _join_weights(group))
            for name in record.combination["rows"]:
                found = current.get((name, record.seed))
                if found is None:
                    yield row, f"{name}, which it is made from, has no row with the same seed in this table"
                elif _is_another_run(record, found):
                    yield row, f"combines another run of {name} than the one in this table"
                else:
                    yield from ((row, f"combines {name} {text}") for text in list_overrides(found))


def list_overrides(record: RunResult, unsaid: Sequence[str] = ()) -> list[str]:
    """List what the settings of a run came from beside settings files, as "run with --set ..." or "--config FILE".

    Args:
        record: run result.
        unsaid: keys of settings to leave out, besides those that change no number.
    """
    entries = ((key, entry["origin"]) for key, entry in sorted(record.settings.items()))
    origins = (origin for key, origin in entries if key not in NEUTRAL_KEYS and key not in unsaid)
    return [f"run with {origin}" for origin in dict.fromkeys(origins) if origin.startswith("--")]


def _join_weights(group: Sequence[RunResult]) -> str:
    """Write the weights of a row, those of several seeds as a range: "text-kNN 2 to 3, ItemKNN 0.2"."""
    found: dict[str, list[float]] = {}
    for record in group:
        for name, weight in ({} if record.combination is None else record.combination["weights"]).items():
            found.setdefault(name, []).append(weight)
    ends = {name: (min(values), max(values)) for name, values in found.items()}
    return ", ".join(f"{name} {low:g}" + (f" to {high:g}" if high > low else "") for name, (low, high) in ends.items())


def describe_combination(combination: Combination, weights: str) -> str:
    """Describe what a row combines and how its weights were found.

    Args:
        combination: description in the run result.
        weights: the weights that were found, of all seeds.
    """
    rows, priors = " and ".join(combination["rows"]), ", ".join(combination["priors"])
    form = combination["transition_form"]
    text = f"mixes log-probabilities of {rows}"
    if priors:
        text = f"adds {priors} to log-probabilities of {rows}" if rows else f"scores by {priors} alone"
    if form is not None:
        text += f" ({form} transitions)"
    if combination["left_out"]:
        text += f", without {', '.join(combination['left_out'])}, for which the dataset has no features"
    if combination["points"]:
        metric, points = combination["valid_metric"], combination["points"]
        text += f"; weights {weights}, the best of {points} points in validation {metric}"
    return f"{text}; nothing is trained"


def _is_another_run(record: RunResult, current: RunResult) -> bool:
    """Return whether a row has combined another run than the current one. Equal ranks count as the same run."""
    read = ({} if record.identity is None else record.identity.get("runs", {})).get(current.label)
    if read is None or read["ranks_sha256"] == current.ranks_sha256:
        return False
    return read["run_sha256"] != digest_run(current)
