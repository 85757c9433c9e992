"""Footnotes of combined rows: what they combine, how their weights were searched, and which rows they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
            yield row, describe_combination(record.combination)
            for name in record.combination["rows"]:
                found = current.get((name, record.seed))
                if found is None:
                    yield row, f"{name}, which it is made from, has no row with the same seed in this table"
                elif _is_another_run(record, found):
                    yield row, f"combines another run of {name} than the one in this table"


def describe_combination(combination: Combination) -> str:
    """Describe what a row combines and how its weights were found.

    Args:
        combination: description in the run result.
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
        text += f"; weights: best validation {combination['valid_metric']} of {combination['points']} points"
    return f"{text}; nothing is trained"


def _is_another_run(record: RunResult, current: RunResult) -> bool:
    """Return whether a row has combined another run than the current one. Equal ranks count as the same run."""
    read = ({} if record.identity is None else record.identity.get("runs", {})).get(current.label)
    if read is None or read["ranks_sha256"] == current.ranks_sha256:
        return False
    return read["run_sha256"] != digest_run(current)
