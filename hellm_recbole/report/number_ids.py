"""Ids of the numbers of a table's rows, and the search for the row of an id in folders of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path
from typing import get_args

from hellm_recbole.config.harness_settings import NEUTRAL_KEYS
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.earlier_names import name_as_today
from hellm_recbole.experiments.published import cut_result
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, find_results, list_result_parts
from hellm_recbole.identity.compare import SEED, SETTING, SPLIT, digest_parts, list_parts
from hellm_recbole.identity.numbers import UNKNOWN, digest_number, format_id, parse_id
from hellm_recbole.identity.parts import Identity, list_unknown_parts
from hellm_recbole.report.groups import Group, list_successful

TIES = "an item with the same score counts as ranked before the target"
_MOST_SEEDS = 10  # rows with more seeds are searched as a whole and by single seeds
# Of a run that an earlier version recorded: what it depends on is listed as unknown.
_EMPTY: Identity = {
    "features": {},
    "item_texts": None,
    "language_model": None,
    "embeddings": {},
    "code": {"sha256": "", "modules": {}},
}
_LONG_DIGITS = 12  # of an id whose short form is that of another number, too


@dataclass(frozen=True)
class Number:
    """A row of a table under one mask: the numbers in its cells have one id.

    Attributes:
        runs: run results of the seeds whose mean the row shows, at least one.
        mask: masking policy.
        cutoffs: cut-offs K.
        digest: SHA-256 over everything that the numbers depend on.
    """

    runs: tuple[RunResult, ...]
    mask: Policy
    cutoffs: tuple[int, ...]
    digest: str

    @property
    def name(self) -> str:
        """The id."""
        return format_id(self.runs[0].split_kind, self.digest)

    @property
    def folder(self) -> Path:
        """Folder of the runs, without the seed."""
        assert self.runs[0].path is not None
        return self.runs[0].path.parents[1]


def identify_number(group: Group, mask: Policy, cutoffs: Sequence[int]) -> Number | None:
    """Identify the numbers of a row; None if no run of the row succeeded.

    Args:
        group: runs of the row.
        mask: masking policy of the numbers.
        cutoffs: cut-offs K of the numbers.
    """
    runs = list_successful(group)
    if not runs:
        return None
    digests = [digest_parts(list_run_parts(run)) for run in runs]
    shared = list_shared_parts(runs[0], mask, cutoffs)
    return Number(tuple(runs), mask, tuple(cutoffs), digest_number(shared, digests))


def list_shared_parts(result: RunResult, mask: Policy, cutoffs: Sequence[int]) -> dict[str, str]:
    """List what the runs of a row share, and how their ranks become numbers: name -> value or digest."""
    return {
        "kind of split": result.split_kind,
        SPLIT: result.split_hash,
        "filter": f"{result.filter['k_core']}-core",
        "ties": TIES,
        "mask": mask,
        "candidates": str(result.n_candidates),
        "K": ", ".join(map(str, cutoffs)),
        "model": f"{result.model} of {result.source}",
    }


def list_run_parts(result: RunResult) -> dict[str, str]:
    """List what one run depends on: name -> value or digest; `unknown` for what an earlier version did not record.

    Paths of the machine are cut, so that a run has the same parts before and after its publication.
    """
    cut = cut_result(result)
    parts = list_result_parts(cut)
    if parts is None:
        settings = {key: entry["value"] for key, entry in cut.settings.items() if key not in NEUTRAL_KEYS}
        parts = list_parts(_EMPTY, settings, cut.split_hash, cut.seed)
        parts |= {f"embeddings of {name}": digest for name, digest in cut.stages.items()}
    for name in list_unknown_parts(cut.identity, cut.backbone is not None):
        what, _, model = name.partition(" of ")
        parts[f"run of {model}, {what}" if model else what] = UNKNOWN
    if cut.external is not None:  # the lists of another system stand for all that is unknown about it
        parts |= {f"file of the phase {phase}": file["file_sha256"] for phase, file in cut.external["files"].items()}
        parts |= {SEED: UNKNOWN} if cut.external["seed"] is None else {}
    return {key: value for key, value in parts.items() if key != SPLIT}


def combine_run_parts(number: Number) -> dict[str, str]:
    """List what the runs of a row depend on: name -> value, or the values of the seeds, separated by commas."""
    each = [list_run_parts(run) for run in sorted(number.runs, key=lambda run: run.seed)]
    keys = sorted(
        {key for parts in each for key in parts}, key=lambda key: (not key.startswith(SETTING), key != SEED, key)
    )
    return {key: ", ".join(dict.fromkeys(parts[key] for parts in each if key in parts)) for key in keys}


def find_number(text: str, folders: Sequence[Path], cutoffs: Sequence[int] | None = None) -> list[Number]:
    """Find the numbers that have an id.

    A row is found, too, if it has got more seeds since. Every mask is tried.

    Args:
        text: the id.
        folders: folders of results; those that do not exist are left out.
        cutoffs: cut-offs K of the table; None takes those of the runs.

    Returns:
        Equal numbers: one, or several if the same runs are in several places.

    Raises:
        SettingsError: the text is not an id.
        ResultError: no number has this id, or several numbers that differ have it.
    """
    letters, digits = parse_id(text)
    found = [
        number
        for folder in folders
        for number in _list_numbers(folder, cutoffs)
        if number.digest.startswith(digits) and number.name.partition("-")[0] == letters
    ]
    places = " and ".join(map(str, folders))
    if not found:
        raise ResultError(
            f"no number in {places} has the id {text}; name its folder with --from (runs that were replaced are gone, "
            "and a table made with --cutoffs needs the same --cutoffs here)"
        )
    different = {number.digest: number for number in found}
    if len(different) > 1:
        longer = [
            f"{format_id(number.runs[0].split_kind, digest, _LONG_DIGITS)} in {number.folder}"
            for digest, number in different.items()
        ]
        raise ResultError(f"{text} is the id of {len(longer)} numbers; name one of them: {', '.join(longer)}")
    return found


def _list_numbers(folder: Path, cutoffs: Sequence[int] | None) -> Iterator[Number]:
    """List the numbers of all rows in a folder of results, under each mask and for each choice of seeds.

    Raises:
        ResultError: a run result is broken.
    """
    datasets = sorted({path.parts[-4] for path in folder.glob(f"*/*/*/{RECORD_FILE}")})
    for dataset in datasets:
        results = [name_as_today(result) for result in find_results(folder, dataset)]
        ordered = sorted(list_successful(results), key=lambda run: (run.label, run.preset, run.seed))
        for _, group in groupby(ordered, key=lambda run: (run.label, run.preset)):
            yield from _list_numbers_of_row([*group], cutoffs)


def _list_numbers_of_row(runs: Sequence[RunResult], cutoffs: Sequence[int] | None) -> Iterator[Number]:
    """List the numbers of one row, under each mask and for each choice of its seeds."""
    digests = {run.seed: digest_parts(list_run_parts(run)) for run in runs}
    sizes = range(1, len(runs) + 1) if len(runs) <= _MOST_SEEDS else (1, len(runs))
    for size in sizes:
        for chosen in combinations(runs, size):
            at = chosen[0].cutoffs if cutoffs is None else tuple(sorted(set(cutoffs)))
            for mask in get_args(Policy):
                shared = list_shared_parts(chosen[0], mask, at)
                yield Number(chosen, mask, at, digest_number(shared, [digests[run.seed] for run in chosen]))
