"""Comparison tables, made only from run results and saved ranks.

A table has one row per model and preset: means over seeds, grouped by family. Two protocols decide which masking policy
the ranks of a row have. `unified` uses one policy for every row, so that rows can be compared with each other. `paper`
uses for each family the policy of its source, which is the only way to compare with the numbers of the paper's Table 1.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import rich.box
import rich.markup
import rich.table
from pydantic import Field
from rich.console import Console
from tabulate import tabulate

from hellm_recbole.config.harness_settings import NEUTRAL_KEYS
from hellm_recbole.config.limits import LARGEST_CUTOFF
from hellm_recbole.config.request import Protocol
from hellm_recbole.config.settings import Settings, load_settings
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import ResultError, SettingsError, shorten, strip_controls
from hellm_recbole.evaluation import metrics
from hellm_recbole.evaluation.significance import bootstrap_means, compute_interval, compute_p_value, correct_holm
from hellm_recbole.experiments.results import (
    PhaseRanks,
    Policy,
    RunResult,
    Search,
    check_comparable,
    find_results,
    list_result_parts,
    read_ranks,
)
from hellm_recbole.identity.compare import CODE, SEED, complete_parts, complete_settings
from hellm_recbole.models.base import Family
from hellm_recbole.report.footnotes import Footnote, find_footnotes, find_repacked_models, list_marks
from hellm_recbole.system.files import ensure_folder, write_text

Floats = npt.NDArray[np.float64]

FAMILY_TITLES: dict[Family, str] = {
    "collaborative": "Collaborative",
    "multimodal": "Multimodal",
    "sequential": "Sequential",
    "llm": "LLM",
}
SOURCE_POLICY: dict[Family, Policy] = {
    "collaborative": "train",
    "multimodal": "train",
    "sequential": "none",
    "llm": "none",
}
STRONG_BASELINES = ("Pop", "ItemKNN", "SASRec")  # a table with an LLM row needs these models for comparison
SEED_PARTS = (
    SEED,
    "embeddings of ",
    CODE,
)  # parts of a run that may differ between the seeds of a row; beginnings of their names
_HASH_DIGITS = 12
_FORMULA = ("=", "+", "-", "@")  # a spreadsheet reads a cell that starts with one of these as a formula
_WIDE = 80  # columns needed to show the two largest K; a narrower terminal shows only the largest one
_TERMINAL_MARKS = {1: ("\u00b9", "bold"), 2: ("\u00b2", "underline")}
_SECONDS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
_BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (1.0, "B"))


class ReportSettings(Settings):
    """Settings of tables and slices; their values are in `properties/report.yaml`.

    Attributes:
        sort_metric: metric that orders the rows inside a group, best first.
        n_resamples: number of resamples of the bootstrap.
        bootstrap_seed: random seed of the bootstrap.
        significance_level: a row gets a star only if its corrected p-value is below this level.
        confidence_level: level of the bootstrap intervals.
        history_quantiles: number of groups of targets by the history length of their users.
        popularity_quantiles: quantiles of the training counts at which targets are split by popularity.
    """

    sort_metric: str
    n_resamples: int = Field(ge=1)
    bootstrap_seed: int = Field(ge=0)
    significance_level: float = Field(gt=0, lt=1)
    confidence_level: float = Field(gt=0, lt=1)
    history_quantiles: int = Field(ge=1)
    popularity_quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...]


def read_report_settings() -> ReportSettings:
    """Read the settings in `properties/report.yaml`."""
    return load_settings(ReportSettings, "report.yaml")


@dataclass(frozen=True)
class Cell:
    """One metric of one row.

    Attributes:
        mean: mean over users and seeds.
        sd: standard deviation over seeds (n - 1 in the denominator); None for a single seed.
        low: lower end of the bootstrap interval of the mean.
        high: upper end of that interval.
        p: Holm-corrected p-value against the best other row; None where there is no other row.
        position: 1 for the best of the column, 2 for the second, otherwise 0; equal means have the same position.
        significant: whether this is the best row, significantly better than the best other row, with as many seeds.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    p: float | None
    position: int
    significant: bool


@dataclass(frozen=True)
class Row:
    """One model with one preset.

    Attributes:
        family: group of the table to which the model belongs.
        model: label of the model, with its language model and whether its values were tuned.
        source: package that contains the model.
        preset: name of the preset.
        status: "success" if a seed succeeded, otherwise the status of the last seed.
        problem: reason why no seed succeeded; None if one did.
        seeds: seeds that succeeded.
        cells: metric -> numbers; empty where no seed succeeded.
        paper: metric -> number of the paper's Table 1; empty where it has none.
        train_seconds: training time, mean over seeds.
        host_bytes: peak memory of the process, largest over seeds.
        device_bytes: peak memory of the device, largest over seeds.
        trainable_parameters: number of trained parameters.
        total_parameters: number of all parameters.
        search: hyper-parameter search that chose the settings; None if there was none.
        marks: letters of the row's footnotes.
    """

    family: Family
    model: str
    source: str
    preset: str
    status: str
    problem: str | None
    seeds: tuple[int, ...]
    cells: Mapping[str, Cell]
    paper: Mapping[str, float]
    train_seconds: float | None
    host_bytes: float | None
    device_bytes: float | None
    trainable_parameters: int | None
    total_parameters: int | None
    search: Search | None
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The content of a table, which each output format prints.

    Attributes:
        protocol: "unified" or "paper", see the top of this file.
        metrics: names of the metric columns, in order.
        paper_metrics: metrics that have a second column with the paper's numbers.
        rows: rows sorted by family, then best first.
        notes: sentences of the caption.
        footnotes: differences between rows other than the model; `Row.marks` refers to them by letter.
        mark_note: sentence that explains the star.
        split_hash: hash of the data split, which is the same for all rows.
        stamp: warning above the table; None where there is nothing to warn about.
    """

    protocol: Protocol
    metrics: tuple[str, ...]
    paper_metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    footnotes: tuple[Footnote, ...]
    mark_note: str
    split_hash: str
    stamp: str | None

    @property
    def searched(self) -> bool:
        """Whether the settings of any row come from a hyper-parameter search."""
        return any(row.search is not None for row in self.rows)

    @property
    def several_presets(self) -> bool:
        """Whether rows have different presets, so that the table needs a column for them."""
        return len({row.preset for row in self.rows}) > 1

    @property
    def on_device(self) -> bool:
        """Whether any row used device memory."""
        return any(row.device_bytes is not None for row in self.rows)


def write_tables(
    results_dir: Path,
    dataset: str,
    protocol: Protocol,
    *,
    metric: str | None = None,
    cutoffs: Sequence[int] | None = None,
) -> str:
    """Build the tables of a dataset and write them into its folder.

    `table.{md,csv,tex}` is the table of the protocol `unified`. `table-paper.{md,csv,tex}` is the table of the protocol
    `paper`. It is written if the paper has the dataset or if `protocol` is `paper`.

    Args:
        results_dir: folder that contains `<dataset>/<model>/<seed>/record.json`.
        dataset: name of the dataset.
        protocol: protocol of the table to return.
        metric: metric that orders the rows inside a group; None takes the one in `properties/report.yaml`.
        cutoffs: cut-offs K; None takes those of the runs.

    Returns:
        The table as text for the terminal, fitted to its width.

    Raises:
        ResultError: there are no run results, one is broken, or the runs cannot be compared in one table.
        OutputError: a table cannot be written.
    """
    records = drop_variants(select_results(results_dir, dataset))
    settings = read_report_settings()
    ranks = read_test_ranks(records)
    in_paper = any(record.paper is not None for record in records)
    terminal_text = ""
    for name, stem in (("unified", "table"), ("paper", "table-paper")):
        if name == "paper" and not in_paper and protocol != "paper":
            continue
        table = build_table(records, ranks, name, settings, metric=metric, cutoffs=cutoffs)  # type: ignore[arg-type]
        for ending, text in (("md", to_markdown(table)), ("csv", to_csv(table)), ("tex", to_latex(table))):
            write_text(ensure_folder(results_dir / dataset) / f"{stem}.{ending}", text)
        if name == protocol:
            terminal_text = to_terminal(table)
    return terminal_text


def select_results(results_dir: Path, dataset: str) -> list[RunResult]:
    """Read all run results of a dataset.

    Raises:
        ResultError: there are none, or one is broken.
    """
    records = find_results(results_dir, dataset)
    if not records:
        raise ResultError(
            f"no record of dataset {dataset} in {results_dir / dataset}; "
            f"run `python benchmarks/run.py --models all --dataset {dataset} --output {results_dir}` first"
        )
    return records


def drop_variants(records: Sequence[RunResult]) -> list[RunResult]:
    """Return the runs of whole models, or all runs if there are only variants; variants have their own table."""
    variants = list_all_variants()
    return [record for record in records if record.model not in variants] or list(records)


def read_test_ranks(records: Sequence[RunResult]) -> dict[Path, PhaseRanks]:
    """Read the test ranks of all successful runs.

    Args:
        records: run results of one dataset.

    Returns:
        Path of the run result -> its test ranks.

    Raises:
        ResultError: the runs cannot be compared in one table, a ranks file is broken or has no test part, or two files
            rank different targets.
    """
    check_comparable(records)
    ranks: dict[Path, PhaseRanks] = {}
    for record in records:
        if record.status != "success":
            continue
        assert record.path is not None
        path = record.path.parent / record.ranks
        phases = read_ranks(path, record.ranks_sha256)
        if "test" not in phases:
            raise ResultError(f"ranks {path} have no test part; run the model again with --fresh")
        ranks[record.path] = phases["test"]
        first_path, first = next(iter(ranks.items()))
        if not (np.array_equal(first.user, phases["test"].user) and np.array_equal(first.item, phases["test"].item)):
            raise ResultError(
                f"ranks {path} and ranks of {first_path} have different (user, target) pairs; run one of the two again "
                "with --fresh"
            )
    return ranks


def group_rows(records: Sequence[RunResult]) -> list[tuple[RunResult, ...]]:
    """Group the runs by label and preset; each group becomes one row of a table.

    Returns:
        The groups, sorted by label and preset; the runs of a group are sorted by seed.

    Raises:
        ResultError: successful seeds of one row have different settings or data, so their mean would be meaningless.
    """
    sorted_records = sorted(records, key=lambda r: (r.label, r.preset, r.seed))
    rows = [tuple(group) for _, group in groupby(sorted_records, key=lambda r: (r.label, r.preset))]
    for row in rows:
        successful = [record for record in row if record.status == "success"]
        for other in successful[1:]:
            a, b = (
                {k: s["value"] for k, s in r.settings.items() if k not in NEUTRAL_KEYS} for r in (successful[0], other)
            )
            a, b = complete_settings(a, b), complete_settings(b, a)
            for key in sorted(a.keys() | b.keys()):
                if a.get(key) != b.get(key):
                    raise ResultError(
                        f"records {successful[0].path} and {other.path} are seeds of one table row but differ in "
                        f"setting {key} ({a.get(key)} and {b.get(key)}); run one of them again with --fresh"
                    )
            _refuse_different_data(successful[0], other)
    return rows


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


def build_table(
    records: Sequence[RunResult],
    ranks: Mapping[Path, PhaseRanks],
    protocol: Protocol,
    settings: ReportSettings,
    *,
    metric: str | None = None,
    cutoffs: Sequence[int] | None = None,
) -> Table:
    """Build the table of runs that can be compared with each other.

    Args:
        records: run results of one dataset, at least one.
        ranks: test ranks of the successful runs, from `read_test_ranks`.
        protocol: "unified" or "paper", see the top of this file.
        settings: settings of the report.
        metric: metric that orders the rows inside a group; None takes `settings.sort_metric`.
        cutoffs: cut-offs K; None takes those of the runs.

    Raises:
        SettingsError: `metric` is neither R@K nor N@K.
        ResultError: seeds of one row have different settings, or a run names a dataset that the paper's table does not
            have.
    """
    first = records[0]
    cutoffs = first.cutoffs if cutoffs is None else sorted(set(cutoffs))
    names = tuple(f"{kind}@{k}" for k in cutoffs for kind in "RN")
    sort_metric = settings.sort_metric if metric is None else metric
    if not re.fullmatch(r"[RN]@[1-9][0-9]{0,6}", sort_metric) or int(sort_metric[2:]) > LARGEST_CUTOFF:
        raise SettingsError(
            f"metric {shorten(sort_metric)!r} is neither R@K nor N@K; choose a metric such as {names[-1]}, with K at "
            f"most {LARGEST_CUTOFF:,}"
        )
    groups = group_rows(records)
    finished = [[record for record in group if record.status == "success"] for group in groups]
    policies: dict[Family, Policy] = (
        SOURCE_POLICY if protocol == "paper" else dict.fromkeys(FAMILY_TITLES, first.mask_history)
    )

    per_seed = [[_compute_per_user(ranks, record, policies, cutoffs, names) for record in runs] for runs in finished]
    finished_rows = [index for index, runs in enumerate(finished) if runs]
    cells: dict[int, dict[str, Cell]] = {index: {} for index in range(len(groups))}
    if finished_rows:
        values = np.stack([np.mean(per_seed[index], axis=0) for index in finished_rows], axis=1)  # [U, R, M]
        # [S, M] for each of the R rows
        seed_means = [np.array([per_user.mean(axis=0) for per_user in per_seed[index]]) for index in finished_rows]
        cells |= dict(zip(finished_rows, _build_cells(values, seed_means, names, settings), strict=True))

    paper = _read_paper_numbers(records) if protocol == "paper" else {}
    # The rows may be ordered by a metric that is not a column, such as N@20 in a table with K = 50.
    sort_values = [
        np.mean(
            [_compute_per_user(ranks, record, policies, [int(sort_metric[2:])], [sort_metric]) for record in runs]
            or 0.0
        )
        for runs in finished
    ]
    order = sorted(
        range(len(groups)),
        key=lambda index: (
            list(FAMILY_TITLES).index(groups[index][0].family),
            not finished[index],
            -sort_values[index],
            groups[index][0].label,
        ),
    )
    footnotes = find_footnotes([groups[index] for index in order])
    rows = [
        replace(_build_row(groups[index], cells[index], paper), marks=list_marks(footnotes, position))
        for position, index in enumerate(order)
    ]
    n_tests = max(len(finished_rows) - 1, 0) * len(names)
    return Table(
        protocol=protocol,
        metrics=names,
        paper_metrics=tuple(name for name in names if any(name in numbers for numbers in paper.values())),
        rows=tuple(rows),
        notes=(*_write_notes(records, protocol, policies, cutoffs), *_write_seed_note(rows)),
        footnotes=tuple(footnotes),
        mark_note=(
            f"the best row of a column is better than its best rival at p < {settings.significance_level:g}: two-sided "
            f"paired bootstrap over users ({settings.n_resamples:,} resamples, seed {settings.bootstrap_seed}; values "
            f"are averaged over seeds first), Holm-corrected over the {n_tests} comparisons of a row with its best "
            "rival in this table."
        ),
        split_hash=first.split_hash,
        stamp=_write_stamp(records),
    )


def _write_stamp(records: Sequence[RunResult]) -> str | None:
    """Warn that the table has a language model but not all strong baselines; None where there is nothing to warn of."""
    successful = [record for record in records if record.status == "success"]
    missing = [name for name in STRONG_BASELINES if name not in {record.model for record in successful}]
    if not missing or not any(record.family == "llm" for record in successful):
        return None
    return f"No strong baseline: LLM rows stand here without {_join(missing)} on the same split."


def _compute_per_user(
    ranks: Mapping[Path, PhaseRanks],
    record: RunResult,
    policies: Mapping[Family, Policy],
    cutoffs: Sequence[int],
    names: Sequence[str],
) -> Floats:
    """Compute the metrics `names` of one run for each user: [U, M], users sorted by token."""
    assert record.path is not None
    phase = ranks[record.path]
    _, values = metrics.compute_per_user(phase.user, phase.get_ranks(policies[record.family]), cutoffs)
    return np.stack([values[name] for name in names], axis=1)


def _build_cells(
    values: Floats, seed_means: Sequence[Floats], names: Sequence[str], settings: ReportSettings
) -> list[dict[str, Cell]]:
    """Build the cells of all R rows that have a successful run.

    Args:
        values: [U, R, M] metrics of each user and row, averaged over seeds.
        seed_means: metrics of each seed averaged over users, [S, M] for each row.
        names: names of the M metrics.
        settings: settings of the report.

    Returns:
        Metric -> cell, for each of the R rows.
    """
    n_users, n_rows, n_metrics = values.shape
    means = values.mean(axis=0)  # [R, M]
    resampled = bootstrap_means(
        values.reshape(n_users, n_rows * n_metrics), settings.n_resamples, settings.bootstrap_seed
    ).reshape(settings.n_resamples, n_rows, n_metrics)
    low, high = compute_interval(resampled, settings.confidence_level)

    # Every row is compared with the best other row. For all rows except the best one, that is the best row. The test
    # of the best row is the same as that of the best other row, so it is counted once.
    best = means.argmax(axis=0)  # [M]
    raw = np.full((n_rows, n_metrics), np.nan)
    for column, top in enumerate(best):
        for row in set(range(n_rows)) - {top}:
            difference = means[top, column] - means[row, column]
            raw[row, column] = compute_p_value(difference, resampled[:, top, column] - resampled[:, row, column])
    tested = ~np.isnan(raw)
    adjusted = np.full_like(raw, np.nan)
    adjusted[tested] = correct_holm(raw[tested])
    positions = np.zeros((n_rows, n_metrics), dtype=np.int64)
    rivals = np.where(np.arange(n_rows)[:, None] == best, -np.inf, means).argmax(axis=0)  # [M], 0 for a single row
    for column, top in enumerate(best):
        if n_rows > 1:
            adjusted[top, column] = adjusted[rivals[column], column]
        for position, value in enumerate(np.unique(means[:, column])[::-1][:2], start=1):
            positions[means[:, column] == value, column] = position
    return [
        {
            name: Cell(
                mean=float(means[row, column]),
                sd=float(seed_means[row][:, column].std(ddof=1)) if len(seed_means[row]) > 1 else None,
                low=float(low[row, column]),
                high=float(high[row, column]),
                p=None if n_rows == 1 else float(adjusted[row, column]),
                position=int(positions[row, column]),
                significant=bool(
                    row == best[column]
                    and adjusted[row, column] < settings.significance_level
                    and len(seed_means[row]) == len(seed_means[rivals[column]])
                ),
            )
            for column, name in enumerate(names)
        }
        for row in range(n_rows)
    ]


def _read_paper_numbers(records: Sequence[RunResult]) -> Mapping[str, Mapping[str, float]]:
    """Read the paper's Table 1: model -> metric -> number; empty if the paper does not have the dataset."""
    columns = {record.paper for record in records} - {None}
    if not columns:
        return {}
    path = find_properties() / "paper" / "table1.yaml"
    table = load_yaml(path)
    if len(columns) > 1 or not columns <= table.keys():
        raise ResultError(
            f"records of {records[0].dataset} name {', '.join(map(str, sorted(columns, key=str)))} as their dataset "
            f"in the paper; all must name the same one of {', '.join(table)}, the datasets of {path}"
        )
    numbers: Mapping[str, Mapping[str, float]] = table[str(columns.pop())]
    return numbers


def _build_row(group: Sequence[RunResult], cells: Mapping[str, Cell], paper: Mapping[str, Mapping[str, float]]) -> Row:
    """Build one row from the runs of its seeds; if none succeeded, the row shows the problem of the last one."""
    successful = [record for record in group if record.status == "success"]
    last = group[-1]
    seconds = [record.train_seconds for record in successful if record.train_seconds is not None]
    host = [record.peak_memory_bytes["host"] for record in successful]
    device = [record.peak_memory_bytes["device"] for record in successful]
    return Row(
        family=last.family,
        model=last.label,
        source=last.source,
        preset=last.preset,
        status="success" if successful else last.status,
        problem=None if successful else _describe_problem(last),
        seeds=tuple(record.seed for record in successful),
        cells=cells,
        paper=paper.get(last.model, {}),
        train_seconds=sum(seconds) / len(seconds) if seconds else None,
        host_bytes=max((size for size in host if size is not None), default=None),
        device_bytes=max((size for size in device if size is not None), default=None),
        trainable_parameters=successful[0].parameters["trainable"] if successful else None,
        total_parameters=successful[0].parameters["total"] if successful else None,
        search=last.search,
    )


def _describe_problem(record: RunResult) -> str:
    """Return the status of a run and the reason for it, on one line."""
    return f"{record.status}: {' '.join((record.reason or '').split())}"


def _write_notes(
    records: Sequence[RunResult], protocol: Protocol, policies: Mapping[Family, Policy], cutoffs: Sequence[int]
) -> tuple[str, ...]:
    """Write the sentences of the caption, which say what the numbers are."""
    first = records[0]
    families = [family for family in FAMILY_TITLES if any(record.family == family for record in records)]
    if protocol == "unified":
        masks = f"Protocol unified: mask policy {first.mask_history} for every row."
    else:
        each = ", ".join(f"{FAMILY_TITLES[family]} {policies[family]}" for family in families)
        masks = f"Protocol paper: mask policy of each family's source ({each})."
    presets, seeds = sorted({r.preset for r in records}), sorted({r.seed for r in records})
    notes = [
        f"{first.dataset}, test part, full ranking over {first.n_candidates:,} candidates, K = {_join(cutoffs)}.",
        masks,
        f"Split {first.split_kind}, {first.split_hash[:_HASH_DIGITS]}.",
        f"{'Presets' if len(presets) > 1 else 'Preset'} {_join(presets)}; "
        + (f"seeds {_join(seeds)}; mean \u00b1 sd where a row has several." if len(seeds) > 1 else f"seed {seeds[0]}."),
    ]
    budgets = {record.label: record.search["budget"] for record in records if record.search is not None}
    if budgets:
        equal = len(set(budgets.values())) == 1
        each = _join([f"{row} {budget}" for row, budget in sorted(budgets.items())])
        kind = "equal budgets" if equal else "UNEQUAL budgets"
        notes.append(f"Values of tuned rows were searched on validation with {kind}: {each}.")
    if any(record.paper is not None for record in records):
        notes.append(
            "Paper: Table 1 of the HeLLM paper."
            if protocol == "paper"
            else "The paper's own numbers stand in table-paper, where each family keeps the mask policy of its source."
        )
    notes += find_repacked_models(records)
    for group in group_rows(records):
        if any(record.status == "success" for record in group):
            others = [record for record in group if record.status != "success"]
            notes += [f"{record.label}, seed {record.seed}, {_describe_problem(record)}." for record in others]
    return tuple(notes)


def _write_seed_note(rows: Sequence[Row]) -> list[str]:
    """Say that rows have different numbers of seeds, if they do: a mean over more seeds varies less."""
    counts: dict[int, list[str]] = {}
    for row in rows:
        if row.seeds:
            counts.setdefault(len(row.seeds), []).append(row.model)
    if len(counts) < 2:
        return []
    usual = max(counts, key=lambda count: len(counts[count]))  # the number of seeds that most rows have
    others = [f"{model} {count}" for count in sorted(counts) if count != usual for model in counts[count]]
    return [
        f"Numbers of seeds differ ({_join(others)}, all others {usual}), so no star stands between a row and a rival "
        "with another number of seeds."
    ]


def _join(values: Sequence[object]) -> str:
    """Write the values with commas between them."""
    return ", ".join(map(str, values))


# Output formats. The cells are the same in all of them; a `_Style` says how one format writes marks.


@dataclass(frozen=True)
class _Style:
    """How an output format writes the parts of a table.

    Attributes:
        text: function that escapes a text.
        best: format of the best number of a column.
        second: format of the second best number.
        plus_minus: text between a mean and its standard deviation.
        mark: star of a significant best row.
        missing: text for a missing value.
        letters: format of the letters of a row's footnotes.
    """

    text: Callable[[str], str]
    best: str
    second: str
    plus_minus: str
    mark: str
    missing: str
    letters: str


def _build_header(table: Table) -> list[str]:
    """Build the column names of a table."""
    header = ["Model", *(["Preset"] if table.several_presets else [])]
    for name in table.metrics:
        header += [name, *([f"paper {name}"] if name in table.paper_metrics else [])]
    header += ["Seeds", "Training", "Host memory", *(["Device memory"] if table.on_device else []), "Parameters"]
    return [*header, *(["Search"] if table.searched else [])]


def _build_line(table: Table, row: Row, style: _Style) -> list[str]:
    """Write a row in the columns of `_build_header`; a row without numbers has only its names and its problem."""
    letters = style.letters.format(",".join(row.marks)) if row.marks else ""
    line = [style.text(row.model) + letters, *([style.text(row.preset)] if table.several_presets else [])]
    if row.problem is not None:
        return [*line, style.text(row.problem)]
    for name in table.metrics:
        line.append(_format_cell(row.cells[name], style))
        if name in table.paper_metrics:
            line.append(f"{row.paper[name]:.4f}" if name in row.paper else style.missing)
    line += [
        str(len(row.seeds)),
        _format_quantity(row.train_seconds, _SECONDS) or style.missing,
        _format_quantity(row.host_bytes, _BYTES) or style.missing,
    ]
    if table.on_device:
        line.append(_format_quantity(row.device_bytes, _BYTES) or style.missing)
    parameters = row.trainable_parameters
    line.append(style.missing if parameters is None else f"{parameters:,}")
    if table.searched:
        line.append(style.missing if row.search is None else style.text(row.search["budget"]))
    return line


def _format_cell(cell: Cell, style: _Style) -> str:
    """Write mean, star and standard deviation of a cell."""
    number = {0: "{}", 1: style.best, 2: style.second}[cell.position].format(f"{cell.mean:.4f}")
    mark = style.mark if cell.significant else ""
    return number + mark + ("" if cell.sd is None else f"{style.plus_minus}{cell.sd:.4f}")


def _format_quantity(value: float | None, units: Sequence[tuple[float, str]]) -> str | None:
    """Write a quantity in the largest unit that is not larger than it, such as "12.3 min"; None stays None."""
    if value is None:
        return None
    size, unit = next((pair for pair in units if value >= pair[0]), units[-1])
    return f"{value / size:.1f} {unit}"


def _escape_markdown(text: str) -> str:
    """Escape a text for GitHub Markdown and drop control characters."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", strip_controls(text))


def escape_csv(line: Sequence[object]) -> list[object]:
    """Escape the cells of a CSV line so that a spreadsheet does not run a text as a formula.

    A text that looks like a formula gets an apostrophe in front, which spreadsheets read as "this is a text". Control
    characters are dropped. All other cells stay as they are.

    >>> escape_csv(["=1+1", "@x", -0.5, None, "LightGCN"])
    ["'=1+1", "'@x", -0.5, None, 'LightGCN']
    """
    texts = [strip_controls(cell) if isinstance(cell, str) else cell for cell in line]
    return [f"'{cell}" if isinstance(cell, str) and cell.lstrip().startswith(_FORMULA) else cell for cell in texts]


_MARKDOWN = _Style(_escape_markdown, "**{}**", "<u>{}</u>", " \u00b1 ", "\\*", "\u2013", " <sup>{}</sup>")


def to_markdown(table: Table) -> str:
    """Format the table as GitHub Markdown, with the caption below."""
    header = ["Group", *_build_header(table)]
    lines, group = [], ""
    for row in table.rows:
        line = [
            "" if FAMILY_TITLES[row.family] == group else FAMILY_TITLES[row.family],
            *_build_line(table, row, _MARKDOWN),
        ]
        lines.append(line + [""] * (len(header) - len(line)))
        group = FAMILY_TITLES[row.family]
    align = ["left", "left", *["right"] * (len(header) - 2)]
    text = tabulate(lines, header, tablefmt="github", disable_numparse=True, colalign=align)
    caption = [*map(_escape_markdown, table.notes), "**Best**, <u>second</u> of a column.", f"\\* {table.mark_note}"]
    stamp = "" if table.stamp is None else f"**{_escape_markdown(table.stamp)}**\n\n"
    footnotes = "".join(f"- {_escape_markdown(str(footnote))}\n" for footnote in table.footnotes)
    return f"{stamp}{text}\n\n{' '.join(caption)}\n" + (f"\n{footnotes}" if footnotes else "")


def to_csv(table: Table) -> str:
    """Format the table as CSV with numbers at full precision; an empty field is a missing value.

    `<metric>_sd` is the standard deviation over seeds, `<metric>_low` and `<metric>_high` are the ends of the bootstrap
    interval, `<metric>_p` is the Holm-corrected p-value of a row against the best other row, and `<metric>_paper` is
    the paper's number.
    """
    stream = io.StringIO()
    header = ["protocol", "split_hash", "group", "model", "source", "preset", "status", "problem", "n_seeds", "seeds"]
    parts = ("", "_sd", "_low", "_high", "_p", "_paper")
    for name in table.metrics:
        header += [name + part for part in parts if part != "_paper" or name in table.paper_metrics]
    header += ["train_seconds", "host_bytes", "device_bytes", "trainable_parameters", "total_parameters"]
    header += ["search", "stamp", "footnotes"]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        line: list[object] = [table.protocol, table.split_hash, row.family, row.model, row.source, row.preset]
        line += [row.status, row.problem, len(row.seeds), " ".join(map(str, row.seeds))]
        for name in table.metrics:
            cell = row.cells.get(name)
            line += [None] * 5 if cell is None else [cell.mean, cell.sd, cell.low, cell.high, cell.p]
            line += [row.paper.get(name) if row.cells else None] * (name in table.paper_metrics)
        line += [row.train_seconds, row.host_bytes, row.device_bytes, row.trainable_parameters, row.total_parameters]
        texts = [f.text for f in table.footnotes if row.seeds and (not f.mark or f.mark in row.marks)]
        line += [None if row.search is None else row.search["budget"], table.stamp, "; ".join(texts) or None]
        writer.writerow(escape_csv(line))
    return stream.getvalue()


_LATEX_ESCAPES = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u00b1": r"$\pm$",
}


def _escape_latex(text: str) -> str:
    """Escape a text for LaTeX in ASCII.

    Letters lose their accents. A character that has no ASCII form becomes a question mark.
    """
    escaped = []
    for char in text:
        if char in _LATEX_ESCAPES:
            escaped.append(_LATEX_ESCAPES[char])
        else:
            plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
            escaped.append("".join(_LATEX_ESCAPES.get(part, part) for part in plain) or "?")
    return "".join(escaped)


_LATEX = _Style(_escape_latex, r"\textbf{{{}}}", r"\underline{{{}}}", r" $\pm$ ", "$^{*}$", "--", "$^{{{}}}$")


def to_latex(table: Table) -> str:
    r"""Format the table as a LaTeX `table` environment; the document needs only `\usepackage{booktabs}`."""
    header = _build_header(table)
    n_names = 2 if table.several_presets else 1  # columns before the numbers
    lines = []
    for family, rows in groupby(table.rows, key=lambda row: row.family):
        lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{FAMILY_TITLES[family]}}}}} \\"]
        for row in rows:
            line = _build_line(table, row, _LATEX)
            if row.problem is not None:
                line[n_names] = rf"\multicolumn{{{len(header) - n_names}}}{{l}}{{{line[n_names]}}}"
            lines.append(" & ".join(line) + r" \\")
    stamp = [] if table.stamp is None else [rf"\textbf{{{_escape_latex(table.stamp)}}}"]
    caption = [*stamp, *map(_escape_latex, table.notes), r"\textbf{Best}, \underline{second} of a column."]
    caption.append(f"$^{{*}}$ {_escape_latex(table.mark_note)}")
    caption += [_escape_latex(str(footnote)) for footnote in table.footnotes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\scriptsize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{' '.join(caption)}}}",
            rf"\begin{{tabular}}{{{'l' * n_names}{'r' * (len(header) - n_names)}}}",
            r"\toprule",
            " & ".join(map(_escape_latex, header)) + r" \\",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def to_terminal(table: Table, width: int | None = None) -> str:
    """Format a short view for the terminal: the two largest K (one if the terminal is narrow) and the training time.

    All other columns are only in the files. There is a column with the number of seeds if a row has several; otherwise
    the notes name the seed.

    Args:
        table: table to print.
        width: width in characters; None takes the width of the terminal.
    """
    console = Console(width=width, highlight=False)
    shown_metrics = table.metrics[-4 if console.width >= _WIDE else -2 :]
    view = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    view.add_column("Model", overflow="fold")
    for name in ("Preset",) if table.several_presets else ():
        view.add_column(name, overflow="fold")
    several_seeds = any(len(row.seeds) > 1 for row in table.rows)
    for name in (*shown_metrics, *(("Seeds",) if several_seeds else ()), "Training"):
        view.add_column(name, justify="right", no_wrap=True)
    problems = [strip_controls(f"{row.model}: {row.problem}") for row in table.rows if row.problem is not None]
    for family, rows in groupby(table.rows, key=lambda row: row.family):
        view.add_row(f"[italic]{FAMILY_TITLES[family]}[/]")
        for row in rows:
            letters = f" ({','.join(row.marks)})" if row.marks else ""
            names = [f" {row.model}{letters}", *([row.preset] if table.several_presets else [])]
            names = [f" {strip_controls(names[0]).strip()}", *map(strip_controls, names[1:])]
            if row.problem is not None:
                view.add_row(*map(rich.markup.escape, names), f"[red]{row.status}[/red]")
                continue
            numbers = [_format_terminal_cell(row, name, name in table.paper_metrics) for name in shown_metrics]
            training = _format_quantity(row.train_seconds, _SECONDS) or "\u2013"
            seeds = [str(len(row.seeds))] if several_seeds else []
            view.add_row(*map(rich.markup.escape, names), *numbers, *seeds, training)
    notes = [*([] if table.stamp is None else [table.stamp]), *problems, *table.notes]
    if table.paper_metrics:
        notes.append("In parentheses: the paper's number.")
    notes += ["\u00b9 best (bold), \u00b2 second (underlined) of a column.", f"* {table.mark_note}"]
    notes += [f"({footnote.mark}) {footnote.text}." if footnote.mark else str(footnote) for footnote in table.footnotes]
    with console.capture() as capture:
        console.print(view)
        console.print("\n".join(map(strip_controls, notes)), markup=False)
    return capture.get()


def _format_terminal_cell(row: Row, name: str, with_paper: bool) -> str:
    """Write the number with its marks, the standard deviation and the paper's number, each on its own line."""
    cell = row.cells[name]
    mark, emphasis = _TERMINAL_MARKS.get(cell.position, (" ", ""))
    lines = [f"[{emphasis}]{cell.mean:.4f}[/]" if emphasis else f"{cell.mean:.4f}"]
    lines[0] += mark + ("*" if cell.significant else " ")
    if cell.sd is not None:
        lines.append(f"\u00b1{cell.sd:.4f}  ")
    if with_paper:
        lines.append(f"({row.paper[name]:.4f}) " if name in row.paper else "(\u2013) ")
    return "\n".join(lines)
