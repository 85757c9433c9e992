"""Rows of the tables of extras: the finished runs that have a file of the extra, as groups of seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from rich.markup import escape

from hellm_recbole.errors import ResultError, strip_controls
from hellm_recbole.experiments.earlier_names import name_as_today
from hellm_recbole.experiments.results import RunResult, check_comparable, find_results
from hellm_recbole.models.base import Family
from hellm_recbole.report.escaping import escape_markdown
from hellm_recbole.report.groups import group_runs
from hellm_recbole.report.protocols import FAMILY_TITLES
from hellm_recbole.report.rendering import render_markdown_table
from hellm_recbole.report.terminal import create_console, create_view, print_view
from hellm_recbole.system.files import sha256_file

Found = TypeVar("Found")
_HASH_DIGITS = 12


@dataclass(frozen=True)
class ExtraRun(Generic[Found]):
    """A successful run with what the extra has found for it."""

    record: RunResult
    found: Found


class TableRow(Protocol):
    """What names a row of a table of extras."""

    @property
    def family(self) -> Family:
        """Group of the table."""

    @property
    def model(self) -> str:
        """Label of the runs."""

    @property
    def preset(self) -> str:
        """Preset of the runs."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the runs."""


@dataclass(frozen=True)
class Mean:
    """Mean of a metric over seeds, and its standard deviation (n - 1 in the denominator; None for one seed)."""

    value: float
    sd: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.4f}" + ("" if self.sd is None else f" \u00b1 {self.sd:.4f}")


def average(values: Sequence[float]) -> Mean:
    """Average a metric over seeds.

    >>> str(average([0.1, 0.3])), str(average([0.25]))
    ('0.2000 ± 0.1414', '0.2500')
    """
    return Mean(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def collect_runs(
    results_dir: Path, dataset: str, read: Callable[[Path, str], Found | None]
) -> list[list[ExtraRun[Found]]]:
    """Collect the successful runs of a dataset that have a file of the extra.

    Args:
        results_dir: folder that contains `<dataset>/<model>/<seed>/record.json`.
        dataset: name of the dataset.
        read: function of a run's folder and of the digest of its `ranks.npz` that reads the file; None for no file.

    Returns:
        The runs of each row, one for each seed; rows by family, then by name. The list is empty if no run has a file.

    Raises:
        ResultError: a file or a record is broken, or the runs cannot share a table.
    """
    runs: dict[Path, ExtraRun[Found]] = {}
    for record in map(name_as_today, find_results(results_dir, dataset)):
        if record.status != "success" or record.published is not None:
            continue
        assert record.path is not None
        folder = record.path.parent
        ranks = folder / record.ranks
        if not ranks.is_file():
            raise ResultError(f"{ranks} is missing; run {record.model} again with --fresh")
        if (found := read(folder, sha256_file(ranks))) is not None:
            runs[record.path] = ExtraRun(record, found)
    check_comparable([run.record for run in runs.values()])
    rows = [
        [runs[record.path] for record in group if record.path is not None]
        for group in group_runs(run.record for run in runs.values())
    ]
    families = [*FAMILY_TITLES]
    return sorted(rows, key=lambda row: families.index(row[0].record.family))


def name_families(families: Sequence[Family]) -> list[str]:
    """Name the family of each row; "" where it is that of the row above."""
    titles = [FAMILY_TITLES[family] for family in families]
    return ["" if number and titles[number - 1] == title else title for number, title in enumerate(titles)]


def refuse_different_items(runs: Sequence[tuple[RunResult, str]], command: str) -> None:
    """Refuse runs whose targets were ranked among different items.

    Args:
        runs: record of each run, and the digest of its items.
        command: command that ranks them again.

    Raises:
        ResultError: the digests of the items differ.
    """
    for other, digest in runs[1:]:
        first, expected = runs[0]
        if digest != expected:
            raise ResultError(
                f"{first.path} and {other.path} were ranked among different sampled items (their digests differ); give "
                f"hellm-recbole {command} for all models again"
            )


def render_rows_markdown(
    columns: Sequence[str], rows: Sequence[TableRow], cells: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """Render a table as GitHub Markdown, with the caption below.

    Args:
        columns: names of the columns of numbers.
        rows: what names each row.
        cells: text of each number of each row.
        notes: sentences of the caption.
    """
    several = len({row.preset for row in rows}) > 1
    header = ["Group", "Model", *(["Preset"] if several else []), "Seeds", *columns]
    families = name_families([row.family for row in rows])
    lines = [
        [
            family,
            escape_markdown(row.model),
            *([escape_markdown(row.preset)] if several else []),
            str(len(row.seeds)),
            *numbers,
        ]
        for family, row, numbers in zip(families, rows, cells, strict=True)
    ]
    n_names = 3 if several else 2
    text = render_markdown_table(header, lines, [*["left"] * n_names, *["right"] * (len(header) - n_names)])
    return f"{text}\n\n{' '.join(map(escape_markdown, notes))}\n"


def render_rows_terminal(
    columns: Sequence[str],
    rows: Sequence[TableRow],
    cells: Sequence[Sequence[str]],
    notes: Sequence[str],
    width: int | None = None,
) -> str:
    """Render a table for the terminal, with the caption below.

    Args:
        columns: names of the columns of numbers.
        rows: what names each row.
        cells: text of each number of each row.
        notes: sentences of the caption.
        width: width in characters; None takes the width of the terminal.
    """
    presets = ["Preset"] if len({row.preset for row in rows}) > 1 else []
    seeds = ["Seeds"] if any(len(row.seeds) > 1 for row in rows) else []
    view = create_view(["Model", *presets], [*columns, *seeds])
    for family, members in groupby(zip(rows, cells, strict=True), key=lambda member: member[0].family):
        view.add_row(f"[italic]{FAMILY_TITLES[family]}[/]")
        for row, numbers in members:
            names = [f" {row.model}", *([row.preset] if presets else [])]
            counts = [str(len(row.seeds))] if seeds else []
            view.add_row(*(escape(strip_controls(name)) for name in names), *numbers, *counts)
    return print_view(create_console(width), view, notes)


def list_csv_names(row: TableRow) -> dict[str, object]:
    """List the fields of a CSV file that name a row."""
    return {
        "group": row.family,
        "model": row.model,
        "preset": row.preset,
        "n_seeds": len(row.seeds),
        "seeds": " ".join(map(str, row.seeds)),
    }


def describe_split(record: RunResult) -> str:
    """Write the sentence of a caption about the split."""
    return f"Split {record.split_kind}, {record.split_hash[:_HASH_DIGITS]}."


def describe_changed(runs: Sequence[tuple[RunResult, int, int]]) -> list[str]:
    """Say for which runs the scores are not exactly those of the run.

    Args:
        runs: record, number of targets whose full rank is not the saved one, and number of targets of each run.
    """
    changed = [f"{record.label}, seed {record.seed}: {count:,} of {total:,}" for record, count, total in runs if count]
    if not changed:
        return ["The scores give the saved full ranks of every row."]
    return [
        f"Targets whose full rank by these scores is not the saved one (another number of threads or another device): "
        f"{'; '.join(changed)}."
    ]
