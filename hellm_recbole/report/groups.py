"""Groups of runs: the seeds of one model with one preset, which become one row of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from hellm_recbole.config.harness_settings import NEUTRAL_KEYS
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.results import RunResult, list_result_parts
from hellm_recbole.identity.compare import CODE, RANKS, SEED, complete_parts, complete_settings

Group = Sequence[RunResult]  # the runs of one row, one for each seed

# Parts of a run that may differ between the seeds of a row; beginnings of their names.
SEED_PARTS = (SEED, "embeddings of ", RANKS, CODE)


def group_runs(records: Iterable[RunResult]) -> tuple[Group, ...]:
    """Group the runs by label and preset; each group becomes one row of a table.

    Returns:
        The groups, sorted by label and preset; the runs of a group are sorted by seed.

    Raises:
        ResultError: successful seeds of one row have different settings or data, so their mean would be meaningless.
    """
    sorted_records = sorted(records, key=lambda r: (r.label, r.preset, r.seed))
    groups = tuple(tuple(group) for _, group in groupby(sorted_records, key=lambda r: (r.label, r.preset)))
    for group in groups:
        successful = list_successful(group)
        for other in successful[1:]:
            _refuse_different_settings(successful[0], other)
            _refuse_different_data(successful[0], other)
    return groups


def list_successful(group: Group) -> list[RunResult]:
    """List the successful runs of a group."""
    return [record for record in group if record.status == "success"]


def _refuse_different_settings(first: RunResult, other: RunResult) -> None:
    """Refuse two seeds of one row that have different values of a setting.

    Raises:
        ResultError: a setting differs; the message names it, its values and both files.
    """
    a, b = ({k: s["value"] for k, s in r.settings.items() if k not in NEUTRAL_KEYS} for r in (first, other))
    a, b = complete_settings(a, b), complete_settings(b, a)
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key):
            raise ResultError(
                f"records {first.path} and {other.path} are seeds of one table row but differ in "
                f"setting {key} ({a.get(key)} and {b.get(key)}); run one of them again with --fresh"
            )


def _refuse_different_data(first: RunResult, other: RunResult) -> None:
    """Refuse two seeds of one row that read different features, texts or weights: their mean would be meaningless.

    Raises:
        ResultError: the two runs read different data; the message names the first difference.
    """
    parts = [list_result_parts(record) for record in (first, other)]
    if parts[0] is None or parts[1] is None:
        return  # recorded by an earlier version; a footnote says that the data are unknown
    comparable = [{k: v for k, v in part.items() if not k.startswith(SEED_PARTS)} for part in parts if part]
    comparable = [complete_parts(comparable[0], comparable[1]), complete_parts(comparable[1], comparable[0])]
    differing = sorted(
        key for key in comparable[0].keys() | comparable[1].keys() if comparable[0].get(key) != comparable[1].get(key)
    )
    if differing:
        raise ResultError(
            f"records {first.path} and {other.path} are seeds of one table row but differ in {differing[0]}; "
            "run one of them again with --fresh"
        )
