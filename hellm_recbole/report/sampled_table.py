"""The table of sampled ranking: metrics among sampled items, each beside that of full ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from hellm_recbole.errors import ResultError, SettingsError
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.sampled_ranking import Candidates
from hellm_recbole.experiments.extra_files import SampledRanks, read_sampled
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import RunResult
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
from hellm_recbole.report.frame import name_metrics
from hellm_recbole.report.rendering import render_csv_lines

NOT_COMPARABLE = (
    "These values are not comparable with full ranking and may order models differently (Krichene and Rendle, 2020)."
)
_DRAWS = {
    "uniform": "uniformly",
    "popularity": "in proportion to their training interactions",
}


@dataclass(frozen=True)
class SampledRow:
    """One model with one preset: metric -> mean over seeds, among sampled items and in full ranking."""

    family: Family
    model: str
    preset: str
    seeds: tuple[int, ...]
    sampled: Mapping[str, Mean]
    full: Mapping[str, Mean]


@dataclass(frozen=True)
class SampledTable:
    """The content of a table of sampled ranking.

    Attributes:
        dataset: name of the dataset.
        candidates: how the items were drawn.
        metrics: names of the metrics, in order.
        rows: rows by family, best first by the last metric among sampled items.
        notes: sentences of the caption.
        split_hash: hash of the split.
        negatives_sha256: digest of the sampled items.
    """

    dataset: str
    candidates: Candidates
    metrics: tuple[str, ...]
    rows: tuple[SampledRow, ...]
    notes: tuple[str, ...]
    split_hash: str
    negatives_sha256: str


def build_sampled_table(
    results_dir: Path, dataset: str, candidates: Candidates, cutoffs: Sequence[int] | None = None
) -> SampledTable:
    """Build the table of all runs of a dataset that have ranks among these sampled items.

    Args:
        results_dir: folder that contains `<dataset>/<model>/<seed>/record.json`.
        dataset: name of the dataset.
        candidates: how the items were drawn.
        cutoffs: cut-offs K; None takes those of the runs.

    Raises:
        ResultError: no run has such ranks, they were made with different items, or the runs cannot share a table.
        SettingsError: a K is so large that every target is a hit.
    """
    groups = collect_runs(results_dir, dataset, lambda folder, digest: read_sampled(folder, candidates, digest))
    if not groups:
        raise ResultError(
            f"no run in {results_dir / dataset} has ranks among {candidates.number} {candidates.distribution} "
            f"candidates with seed {candidates.seed}; make them with hellm-recbole sampled-ranking --dataset {dataset}"
        )
    runs = [run for group in groups for run in group]
    refuse_different_items([(run.record, run.found.negatives_sha256) for run in runs], "sampled-ranking")
    chosen = sorted(set(cutoffs or runs[0].record.cutoffs))
    refuse_large_cutoffs(chosen, candidates)
    metrics = name_metrics(chosen)
    rows = [_build_row(group, chosen) for group in groups]
    families = list(dict.fromkeys(row.family for row in rows))
    rows.sort(key=lambda row: (families.index(row.family), -row.sampled[metrics[-1]].value))
    return SampledTable(
        dataset,
        candidates,
        metrics,
        tuple(rows),
        tuple(_write_notes(runs, candidates, chosen, rows, metrics[-1])),
        runs[0].record.split_hash,
        runs[0].found.negatives_sha256,
    )


def refuse_large_cutoffs(cutoffs: Sequence[int], candidates: Candidates) -> None:
    """Refuse a cut-off at which every target is a hit.

    Raises:
        SettingsError: a K is larger than the number of sampled items.
    """
    if cutoffs[-1] > candidates.number:
        raise SettingsError(
            f"K = {cutoffs[-1]} makes every target a hit among {candidates.number} candidates; name smaller values "
            "with --cutoffs, or more candidates"
        )


def render_sampled_markdown(table: SampledTable) -> str:
    """Render the table as GitHub Markdown, with the caption below."""
    return render_rows_markdown(*_list_cells(table, table.metrics), table.notes)


def render_sampled_terminal(table: SampledTable, width: int | None = None) -> str:
    """Render the metrics of the largest K for the terminal, with the caption below; the files have all metrics.

    Args:
        table: table to print.
        width: width in characters; None takes the width of the terminal.
    """
    return render_rows_terminal(*_list_cells(table, table.metrics[-2:]), table.notes, width)


def _list_cells(
    table: SampledTable, metrics: Sequence[str]
) -> tuple[list[str], tuple[SampledRow, ...], list[list[str]]]:
    """List the columns, the rows and the text of their numbers: each metric, and that of full ranking beside it."""
    columns = [name for metric in metrics for name in (metric, f"full {metric}")]
    cells = [[str(part[metric]) for metric in metrics for part in (row.sampled, row.full)] for row in table.rows]
    return columns, table.rows, cells


def render_sampled_csv(table: SampledTable) -> str:
    """Render the table as CSV with numbers at full precision.

    `<metric>_sd` is the standard deviation over seeds, and `full_<metric>` the metric of full ranking.
    """
    lines: list[dict[str, object]] = []
    for row in table.rows:
        line: dict[str, object] = {
            "candidates": table.candidates.distribution,
            "number": table.candidates.number,
            "draw_seed": table.candidates.seed,
            "negatives_sha256": table.negatives_sha256,
            "split_hash": table.split_hash,
            **list_csv_names(row),
        }
        for metric in table.metrics:
            for name, mean in ((f"sampled_{metric}", row.sampled[metric]), (f"full_{metric}", row.full[metric])):
                line |= {name: mean.value, f"{name}_sd": mean.sd}
        lines.append(line)
    return render_csv_lines(lines, list(lines[0]))


def _build_row(group: Sequence[ExtraRun[SampledRanks]], cutoffs: Sequence[int]) -> SampledRow:
    """Build the row of a model from its seeds."""
    first = group[0].record
    sampled = [average_metrics(run.found.user, run.found.rank, cutoffs) for run in group]
    full = [_compute_full(run.record, cutoffs) for run in group]
    return SampledRow(
        first.family,
        first.label,
        first.preset,
        tuple(run.record.seed for run in group),
        {name: average([values[name] for values in sampled]) for name in sampled[0]},
        {name: average([values[name] for values in full]) for name in full[0]},
    )


def _compute_full(record: RunResult, cutoffs: Sequence[int]) -> dict[str, float]:
    """Compute the metrics of full ranking from the saved ranks of a run."""
    assert record.path is not None
    ranks = read_ranks(record.path.parent / record.ranks, record.ranks_sha256)["test"]
    return average_metrics(ranks.user, ranks.get_ranks(record.mask_history), cutoffs)


def _write_notes(
    runs: Sequence[ExtraRun[SampledRanks]],
    candidates: Candidates,
    cutoffs: Sequence[int],
    rows: Sequence[SampledRow],
    metric: str,
) -> list[str]:
    """Write the sentences of the caption."""
    first = runs[0]
    record = first.record
    changed = [(run.record, run.found.n_changed, len(run.found.rank)) for run in runs]
    pairs = [*combinations(rows, 2)]
    swapped = sum(
        (a.sampled[metric].value - b.sampled[metric].value) * (a.full[metric].value - b.full[metric].value) < 0
        for a, b in pairs
    )
    return [
        f"SAMPLED ranking, an extra beside the full one: {record.dataset}, test part, each target among "
        f"{candidates.number} items that its user has not seen, drawn {_DRAWS[candidates.distribution]}, without "
        f"replacement, with seed {candidates.seed}, the same for every row (digest "
        f"{first.found.negatives_sha256[:12]}); K = {', '.join(map(str, cutoffs))}; ties count against the model.",
        NOT_COMPARABLE,
        f'Columns "full": ranking over all {record.n_candidates:,} items, mask policy {record.mask_history}.',
        *([f"By {metric}, {swapped} of {len(pairs)} pairs of rows are in another order than there."] if pairs else []),
        describe_split(record),
        *describe_changed(changed),
    ]
