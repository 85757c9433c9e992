"""The table of native tasks: CoLLM's AUC and user AUC, and LLaRA's hit ratio among 20 items, as adaptations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hellm_recbole.config.extra_settings import NativeTaskSettings
from hellm_recbole.errors import ResultError
from hellm_recbole.evaluation.rating_auc import UserAUC, compute_auc, compute_user_auc
from hellm_recbole.evaluation.sampled_ranking import Candidates
from hellm_recbole.experiments.extra_files import HeldOut, RatedScores, SampledRanks, read_rated, read_sampled
from hellm_recbole.models.base import Family
from hellm_recbole.report.extra_rows import (
    ExtraRun,
    Mean,
    average,
    collect_runs,
    describe_changed,
    describe_split,
    list_csv_names,
    refuse_different_items,
    render_rows_markdown,
    render_rows_terminal,
)
from hellm_recbole.report.rendering import MISSING, render_csv_lines

AUC, RANK_AUC, USER_AUC = "AUC", "AUC of ranks", "uAUC"
_CSV_NAMES = {AUC: "auc", RANK_AUC: "auc_of_ranks", USER_AUC: "user_auc"}


@dataclass(frozen=True)
class NativeRow:
    """One model with one preset: column -> mean over seeds; a column that a run has no file for is missing."""

    family: Family
    model: str
    preset: str
    seeds: tuple[int, ...]
    values: Mapping[str, Mean]


@dataclass(frozen=True)
class NativeTable:
    """The content of a table of native tasks.

    Attributes:
        dataset: name of the dataset.
        columns: names of the columns.
        rows: rows by family, then by name.
        notes: sentences of the caption.
        split_hash: hash of the split.
        held_out: which rated items the AUC is over.
        settings: settings of the tasks.
    """

    dataset: str
    columns: tuple[str, ...]
    rows: tuple[NativeRow, ...]
    notes: tuple[str, ...]
    split_hash: str
    held_out: HeldOut
    settings: NativeTaskSettings


@dataclass(frozen=True)
class _Files:
    """The files of a run: its scores of rated items, and its ranks among sampled items."""

    rated: RatedScores | None
    sampled: SampledRanks | None


@dataclass
class _Auc:
    """What the AUC of a run is made of, for the table and for its caption."""

    values: dict[str, float] = field(default_factory=dict)
    users: UserAUC | None = None
    n_items: int = 0
    n_liked: int = 0


def choose_hit_candidates(settings: NativeTaskSettings) -> Candidates:
    """Return how the items of LLaRA's task are drawn."""
    return Candidates("uniform", settings.hit_negatives, settings.draw_seed)


def build_native_table(results_dir: Path, dataset: str, settings: NativeTaskSettings, held_out: HeldOut) -> NativeTable:
    """Build the table of all runs of a dataset that have a file of a native task.

    Args:
        results_dir: folder that contains `<dataset>/<model>/<seed>/record.json`.
        dataset: name of the dataset.
        settings: settings of the tasks.
        held_out: which rated items the AUC is over.

    Raises:
        ResultError: no run has such a file, or the runs cannot share a table.
    """
    candidates = choose_hit_candidates(settings)

    def read(folder: Path, digest: str) -> _Files | None:
        files = _Files(read_rated(folder, held_out, digest), read_sampled(folder, candidates, digest))
        return None if files.rated is None and files.sampled is None else files

    groups = collect_runs(results_dir, dataset, read)
    if not groups:
        raise ResultError(
            f"no run in {results_dir / dataset} has scores for the native tasks; make them with hellm-recbole "
            f"native-tasks --dataset {dataset}"
        )
    runs = [run for group in groups for run in group]
    ranked = [(run.record, run.found.sampled.negatives_sha256) for run in runs if run.found.sampled is not None]
    refuse_different_items(ranked, "native-tasks")
    aucs = {id(run): _compute_auc(run.found.rated, settings) for run in runs}
    values = {id(run): aucs[id(run)].values | _compute_hits(run.found.sampled, settings) for run in runs}
    columns = [AUC, RANK_AUC, USER_AUC] if any(run.found.rated is not None for run in runs) else []
    columns += [_name_hits(settings)] if any(run.found.sampled is not None for run in runs) else []
    rows = [
        NativeRow(
            group[0].record.family,
            group[0].record.label,
            group[0].record.preset,
            tuple(run.record.seed for run in group),
            {
                name: average([values[id(run)][name] for run in group])
                for name in columns
                if all(name in values[id(run)] for run in group)
            },
        )
        for group in groups
    ]
    rated = [aucs[id(run)] for run in runs if run.found.rated is not None]
    notes = _write_notes(runs, settings, held_out, rated)
    return NativeTable(
        dataset, tuple(columns), tuple(rows), tuple(notes), runs[0].record.split_hash, held_out, settings
    )


def render_native_markdown(table: NativeTable) -> str:
    """Render the table as GitHub Markdown, with the caption below."""
    return render_rows_markdown(table.columns, table.rows, _list_cells(table), table.notes)


def render_native_terminal(table: NativeTable, width: int | None = None) -> str:
    """Render the table for the terminal, with the caption below.

    Args:
        table: table to print.
        width: width in characters; None takes the width of the terminal.
    """
    return render_rows_terminal(table.columns, table.rows, _list_cells(table), table.notes, width)


def _list_cells(table: NativeTable) -> list[list[str]]:
    """List the text of the numbers of each row."""
    return [[str(row.values.get(name, MISSING)) for name in table.columns] for row in table.rows]


def render_native_csv(table: NativeTable) -> str:
    """Render the table as CSV with numbers at full precision; `<column>_sd` is the standard deviation over seeds."""
    lines: list[dict[str, object]] = []
    for row in table.rows:
        line: dict[str, object] = {
            "task": "adaptation",
            "held_out": table.held_out,
            "liked_above": table.settings.liked_above,
            "draw_seed": table.settings.draw_seed,
            "split_hash": table.split_hash,
            **list_csv_names(row),
        }
        for column in table.columns:
            name, mean = _CSV_NAMES.get(column, column), row.values.get(column)
            line |= {name: None if mean is None else mean.value, f"{name}_sd": None if mean is None else mean.sd}
        lines.append(line)
    return render_csv_lines(lines, list(lines[0]))


def _name_hits(settings: NativeTaskSettings) -> str:
    """Name the column of LLaRA's hit ratio."""
    return f"HR@{settings.hit_cutoff} of {settings.hit_negatives + 1}"


def _compute_auc(rated: RatedScores | None, settings: NativeTaskSettings) -> _Auc:
    """Compute the AUC of a run over rated items, pooled and for each user."""
    if rated is None:
        return _Auc()
    liked = rated.rating > settings.liked_above
    users = compute_user_auc(rated.user, liked, rated.score)
    found = {
        AUC: compute_auc(liked, rated.score),
        RANK_AUC: compute_auc(liked, -rated.rank),
        USER_AUC: users.mean,
    }
    values = {name: value for name, value in found.items() if value is not None}
    return _Auc(values, users, len(liked), int(liked.sum()))


def _compute_hits(sampled: SampledRanks | None, settings: NativeTaskSettings) -> dict[str, float]:
    """Compute the share of targets among the first K of their lists."""
    if sampled is None:
        return {}
    return {_name_hits(settings): float(np.mean(sampled.rank <= settings.hit_cutoff))}


def _write_notes(
    runs: Sequence[ExtraRun[_Files]], settings: NativeTaskSettings, held_out: HeldOut, aucs: Sequence[_Auc]
) -> list[str]:
    """Write the sentences of the caption."""
    record = runs[0].record
    notes = [
        f"ADAPTATIONS of the native tasks of CoLLM and LLaRA beside full ranking, on {record.dataset}: every row was "
        "trained to choose the next item among all items, with every rating as a positive, and no row was trained for "
        "these tasks, so the values are not those of the papers."
    ]
    if aucs:
        notes += _describe_auc(aucs[0], settings, held_out)
    if any(run.found.sampled is not None for run in runs):
        notes.append(
            f"{_name_hits(settings)} (LLaRA): share of test targets among the first {settings.hit_cutoff} of "
            f"{settings.hit_negatives + 1} items, the others drawn uniformly, without replacement, with seed "
            f"{settings.draw_seed}, from what the user has not seen, the same for every row; ties count against the "
            f"model; chance gives {settings.hit_cutoff / (settings.hit_negatives + 1):.4f}. LLaRA writes a title, here "
            "items are scored, so every answer is valid."
        )
    notes.append(describe_split(record))
    changed = [(run.record, run.found.rated.n_changed, len(run.found.rated.rank)) for run in runs if run.found.rated]
    changed += [
        (run.record, run.found.sampled.n_changed, len(run.found.sampled.rank))
        for run in runs
        if run.found.sampled is not None and run.found.rated is None
    ]
    return [*notes, *describe_changed(changed)]


def _describe_auc(auc: _Auc, settings: NativeTaskSettings, held_out: HeldOut) -> list[str]:
    """Write the sentences about AUC and user AUC; the counts are the same for all rows."""
    users = auc.users
    assert users is not None
    items = (
        "test items, scored with the history of the test phase"
        if held_out == "test"
        else "validation and test items, both scored with the training history (validation items also chose the epoch)"
    )
    notes = [
        f"AUC (CoLLM): {auc.n_items:,} {items}; {auc.n_liked:,} are liked, with a rating above "
        f"{settings.liked_above:g}. It is the chance that a liked item scores higher than a disliked one, of any "
        "users; a tie counts one half.",
        "A constant that a model adds to all scores of a user changes AUC but no ranking; AUC of ranks has the item's "
        "rank among all items in place of its score.",
        f"uAUC: mean over {users.n_users:,} users with a liked and a disliked item; left out are {users.n_single:,} "
        f"users with one item and {users.n_one_class:,} with items of one class.",
    ]
    if users.n_users == 0:
        notes.append("It needs several test items of a user: use --held-out both, or another split.")
    return notes
