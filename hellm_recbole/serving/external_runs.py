"""Rank the lists or scores of another system, and write the result as a run marked `external`.

The folder of such a run, `<output>/<dataset>/<name>/<seed or external>`, has `record.json` and `ranks.npz`, so that
`report` shows it as a row. Nothing is claimed about its training: what cannot be known is null, empty or "unknown".
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from hellm_recbole import __version__
from hellm_recbole.errors import DataError, OutputError, SettingsError
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import Ranks, rank_targets
from hellm_recbole.experiments.external_lists import EXTERNAL, External, ListFile
from hellm_recbole.experiments.openings import count_external
from hellm_recbole.experiments.ranks_file import PhaseRanks, write_ranks
from hellm_recbole.experiments.recording import build_phase_ranks, count_split
from hellm_recbole.experiments.results import SCHEMA, RunResult, find_results, write_result
from hellm_recbole.serving.dataset import LoadedDataset
from hellm_recbole.serving.given_lists import GivenScorer, count_lists, make_list_scorer
from hellm_recbole.serving.given_scores import read_evaluation_settings
from hellm_recbole.serving.score_files import read_score_file
from hellm_recbole.serving.score_tables import GivenMatrix, GivenPairs, Order, ScoreFormat
from hellm_recbole.system import runtime
from hellm_recbole.system.files import remove_folder, sha256_file

Phase = Literal["valid", "test"]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How a file of lists or scores is read; see `score_files.read_score_file` and `given_lists.make_list_scorer`."""

    form: ScoreFormat | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    by: Order | None = None
    ids: Path | None = None
    drop_unknown: bool = False


@dataclass(frozen=True)
class RankedFile:
    """A file whose targets are ranked.

    Attributes:
        scorer: scorer of the file.
        ranks: ranks of the targets of the phase.
        phase_ranks: the same ranks with tokens and counts.
        about: description of the file for the record.
    """

    scorer: GivenScorer
    ranks: Ranks
    phase_ranks: PhaseRanks
    about: ListFile


def rank_file(path: Path, dataset: LoadedDataset, phase: Phase, options: ReadingOptions) -> RankedFile:
    """Rank the targets of a phase by the lists or scores of a file.

    Args:
        path: file that another system has saved.
        dataset: dataset with the split.
        phase: part of the split for whose targets the lists were made.
        options: how the file is read.

    Raises:
        DataError: the file cannot be read, does not fit the dataset, or has no list of a user with a target.
        SettingsError: an option does not belong to the format of the file.
    """
    given = read_score_file(path, form=options.form, columns=options.columns, by=options.by, ids=options.ids)
    scorer = make_list_scorer(given, dataset.split, str(path), drop_unknown=options.drop_unknown)
    targets, seen = dataset.select_phase(phase)
    block_users = read_evaluation_settings().eval_block_users
    counts = count_lists(scorer, targets, seen, block_users)
    if counts.longest == 0:
        raise DataError(
            f"{path} lists no candidate for any of the users with a {phase} target; check that the ids are those of "
            "the source data"
        )
    ranks = rank_targets(
        scorer, targets, train=dataset.split.train, seen=seen, block_users=block_users, who=f"{path}, {phase}"
    )
    about: ListFile = {
        "file": path.name,
        "file_sha256": sha256_file(path),
        "format": given.form,
        "order": _name_order(given),
        "longest": counts.longest,
        "shortest": counts.shortest,
        "targets": counts.n_targets,
        "missing": counts.n_missing,
        "without": counts.n_users_without,
        "history": counts.n_history,
        "unknown": counts.n_unknown,
    }
    return RankedFile(scorer, ranks, build_phase_ranks(ranks, dataset.split, seen), about)


def _name_order(given: GivenPairs | GivenMatrix) -> Order:
    """Return what orders the items of a user: scores or ranks."""
    return given.order if isinstance(given, GivenPairs) else "score"


def choose_cutoffs(output: Path, dataset: str, cutoffs: Sequence[int] | None) -> tuple[int, ...]:
    """Choose the cut-offs of the record: the given ones, or those of the runs beside it, or the usual ones.

    Args:
        output: folder of the results.
        dataset: name of the dataset.
        cutoffs: given cut-offs K, or None.

    Raises:
        ResultError: a result of the dataset is broken.
    """
    if cutoffs is not None:
        return tuple(sorted(cutoffs))
    beside = find_results(output, dataset)
    return beside[0].cutoffs if beside else tuple(read_evaluation_settings().cutoffs)


def locate_external(output: Path, dataset: str, name: str, seed: int | None, *, fresh: bool) -> Path:
    """Find the folder of an external run, and refuse one that may not be written.

    Args:
        output: folder of the results.
        dataset: name of the dataset.
        name: name of the row.
        seed: seed of the other system; None if it is unknown.
        fresh: whether to replace an external run of this name.

    Raises:
        OutputError: the row exists, and is another kind of run or is not to be replaced; or an unknown seed would stand
            beside known ones.
    """
    row = output / dataset / name
    folder = row / (EXTERNAL if seed is None else str(seed))
    runs = [result for result in find_results(output, dataset) if result.label == name]
    if any(result.external is None for result in runs):
        raise OutputError(f"{row} holds runs of this project; choose another name for the external row with --name")
    others = {run.path.parent.name for run in runs if run.path is not None and run.path.parent != folder}
    if others and (seed is None or EXTERNAL in others):
        raise OutputError(
            f"{row} has a run of a known seed and one of an unknown seed then; name each seed with --seed, or choose "
            "another name with --name"
        )
    for other in (path for path in row.glob("*") if path.is_dir()):
        if all(run.path is None or run.path.parent != other for run in runs):
            raise OutputError(f"{other} is no external row; choose another name with --name, or remove it")
    if folder.exists() and not fresh:
        raise OutputError(f"{folder} exists; replace it with --fresh, or choose another name with --name")
    return folder


def record_external(
    folder: Path,
    files: Mapping[Phase, RankedFile],
    dataset: LoadedDataset,
    name: str,
    seed: int | None,
    cutoffs: Sequence[int],
    seconds: float,
) -> RunResult:
    """Write the ranks and the record of an external run.

    Args:
        folder: folder of the run.
        files: phase -> ranked file; "test" is among them.
        dataset: dataset with the split.
        name: name of the row.
        seed: seed of the other system; None if it is unknown.
        cutoffs: cut-offs K.
        seconds: time that ranking took.

    Raises:
        OutputError: the folder cannot be written.
    """
    valid = files["valid"].phase_ranks if "valid" in files else None
    path = write_ranks(folder, valid, files["test"].phase_ranks)
    metrics: Any = {"valid": {}, "test": {}}
    for phase, file in files.items():
        metrics[phase] = average_metrics(file.ranks.user, file.ranks.seen, cutoffs)
    git = runtime.read_git_state()
    versions: Any = {**runtime.list_versions(), "hellm_recbole": __version__}
    result = RunResult(
        **_describe_data(dataset, cutoffs),
        model=name,
        family="external",
        source="external",
        settings={},
        modalities=(),
        seed=0 if seed is None else seed,
        preset=EXTERNAL,
        versions=versions,
        git_commit=git["git_commit"],
        git_dirty=git["git_dirty"],
        device="unknown",
        threads=torch.get_num_threads(),
        train_seconds=None,
        eval_seconds=seconds,
        epochs_run=0,
        best_epoch=None,
        peak_memory_bytes={"host": None, "device": None},
        parameters={"trainable": None, "total": None},
        metrics=metrics,
        curve=(),
        ranks=path.name,
        status="success",
        reason=None,
        ranks_sha256=sha256_file(path),
        external=External(seed=seed, files={phase: file.about for phase, file in files.items()}),
    )
    write_result(folder, result)
    return result


def _describe_data(dataset: LoadedDataset, cutoffs: Sequence[int]) -> dict[str, Any]:
    """Return the fields of a record that describe dataset, split and protocol."""
    split, source = dataset.split, dataset.source
    return {
        "schema": SCHEMA,
        "dataset": split.dataset,
        "counts": count_split(split),
        "filter": {"k_core": source.k_core, "dropped": source.n_dropped},
        "split_kind": split.kind,
        "split_hash": split.sha256,
        "mask_history": "seen",
        "n_candidates": split.n_items,
        "cutoffs": tuple(cutoffs),
        "paper": source.paper,
    }


def score_files(
    paths: Mapping[Phase, Path],
    dataset: LoadedDataset,
    output: Path,
    *,
    name: str,
    seed: int | None,
    cutoffs: Sequence[int] | None,
    options: ReadingOptions,
    fresh: bool,
) -> tuple[RunResult, dict[Phase, RankedFile], Path]:
    """Rank the files of another system and write the result as an external run.

    Args:
        paths: phase -> file; "test" is among them.
        dataset: dataset with the split.
        output: folder of the results.
        name: name of the row.
        seed: seed of the other system; None if it is unknown.
        cutoffs: cut-offs K; None takes those of the runs in the folder, or the usual ones.
        options: how the files are read.
        fresh: whether to replace an external run of this name.

    Returns:
        The result, the ranked files and the folder of the run.

    Raises:
        HellmError: a file is wrong, or the folder cannot be used.
    """
    chosen = choose_cutoffs(output, dataset.name, cutoffs)
    folder = locate_external(output, dataset.name, name, seed, fresh=fresh)
    started = time.perf_counter()
    files = {phase: rank_file(path, dataset, phase, options) for phase, path in paths.items()}
    _refuse_large_cutoffs(chosen, files, dataset)
    if folder.exists():
        remove_folder(folder, output)
    result = record_external(folder, files, dataset, name, seed, chosen, time.perf_counter() - started)
    count_external(folder, result)
    return result, files, folder


def _refuse_large_cutoffs(cutoffs: Sequence[int], files: Mapping[Phase, RankedFile], dataset: LoadedDataset) -> None:
    """Refuse cut-offs at which a target that no list has would count as found, because it ranks last.

    Raises:
        SettingsError: there is one.
    """
    for phase, file in files.items():
        _, seen = dataset.select_phase(phase)
        fewest = dataset.split.n_items - int(np.diff(seen.indptr).max())
        if file.about["missing"] and max(cutoffs) >= fewest:
            raise SettingsError(
                f"cut-off {max(cutoffs)}: some users have only {fewest:,} candidates, so a target that is not listed "
                f"would count as found; choose cut-offs below {fewest:,} with --cutoffs"
            )
