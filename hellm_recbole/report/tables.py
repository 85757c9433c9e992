"""Comparison tables, made from records and saved ranks alone.

One row per model (and preset): means over seeds, grouped by family. Two protocols (which mask a rank was taken under):
`unified` puts every row under one policy, so rows compare with each other; `paper` puts each family under the policy of
its source, the only form in which a number may stand beside the paper's Table 1.
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
from typing import Literal

import numpy as np
import numpy.typing as npt
import rich.box
import rich.markup
import rich.table
from rich.console import Console
from tabulate import tabulate

from hellm_recbole.config.layers import (
    LARGEST_CUTOFF,
    NEUTRAL_KEYS,
    find_properties,
    load_settings,
    load_yaml,
    setting,
    shorten,
)
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.errors import ResultError, SettingsError, strip_controls
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
from hellm_recbole.identity.compare import CODE, SEED
from hellm_recbole.models.base import Family
from hellm_recbole.report.footnotes import Footnote, find_footnotes, find_repacked_models, list_marks
from hellm_recbole.system.files import ensure_folder, write_text

Protocol = Literal["unified", "paper"]
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
STRONG_BASELINES = ("Pop", "ItemKNN", "SASRec")  # what a language model has to beat before anything is said of it
OWN_TO_A_SEED = (SEED, "embeddings of ", CODE)  # in which seeds of one row may differ
_HASH_DIGITS = 12
_FORMULA = ("=", "+", "-", "@")  # what a cell begins with that a spreadsheet takes for a formula
_WIDE = 80  # columns that hold the two largest K; a narrower terminal gets the largest one
_TERMINAL_MARKS = {1: ("\u00b9", "bold"), 2: ("\u00b2", "underline")}
_SECONDS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
_BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (1.0, "B"))


@dataclass(frozen=True)
class ReportSettings:
    """How tables and slices are made; values in `properties/report.yaml`.

    Attributes:
        sort_metric: orders the rows inside a group, best first.
        n_resamples: of the bootstrap.
        bootstrap_seed: of the resampling.
        significance_level: a mark needs a corrected p-value below it.
        confidence_level: of the bootstrap intervals.
        history_quantiles: number of groups of users by history length.
        popularity_quantiles: where targets are cut by training count.
    """

    sort_metric: str = setting()
    n_resamples: int = setting(ge=1)
    bootstrap_seed: int = setting(ge=0)
    significance_level: float = setting(gt=0, lt=1)
    confidence_level: float = setting(gt=0, lt=1)
    history_quantiles: int = setting(ge=1)
    popularity_quantiles: tuple[float, ...] = setting(gt=0, lt=1)


def read_report_settings() -> ReportSettings:
    """The values of `properties/report.yaml`."""
    return load_settings(ReportSettings, "report.yaml")


@dataclass(frozen=True)
class Cell:
    """One metric of one row.

    Attributes:
        mean: over users and seeds.
        sd: over seeds (n - 1 in the denominator), None for one seed.
        low: lower end of the bootstrap interval of the mean.
        high: upper end.
        p: Holm-corrected p-value against the best rival, None without a rival.
        place: 1 best of the column, 2 second, else 0; equal means share a place.
        significant: the best row, and better than its best rival.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    p: float | None
    place: int
    significant: bool


@dataclass(frozen=True)
class Row:
    """One model under one preset; `cells` is empty and `problem` says why where no seed succeeded.

    `marks` are the letters of its footnotes. `paper` holds the numbers of the paper's Table 1 by metric. Seconds are
    means over seeds, bytes the largest of them.
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
    """Everything the output forms print.

    Attributes:
        protocol: see the head of this file.
        metrics: columns, in order.
        paper_metrics: those that have a column of the paper's numbers beside them.
        rows: by family, then best first.
        notes: sentences of the caption.
        footnotes: in what rows differ beside the model; rows name those that concern them by their letters.
        mark_note: the sentence that says what the mark means.
        split_hash: of all rows.
        stamp: what a reader must know before any number; None where there is nothing.
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
        """Whether any row has tuned values."""
        return any(row.search is not None for row in self.rows)

    @property
    def several_presets(self) -> bool:
        """Whether a column must tell the presets apart."""
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
    """Make the tables of a dataset and write them into its folder.

    `table.{md,csv,tex}` is the unified table. `table-paper.{md,csv,tex}` is the other one, written where the dataset is
    one of the paper's or where `protocol` asks for it.

    Args:
        results_dir: holds `<dataset>/<model>/<seed>/record.json`.
        dataset: name.
        protocol: which of the two is returned.
        metric: orders the rows inside a group; None takes it from `properties/report.yaml`.
        cutoffs: the K; None takes those of the records.

    Returns:
        The table for the terminal, as wide as it is.

    Raises:
        ResultError: there are no records, one is broken, or they may not share a table.
        OutputError: a table cannot be written.
    """
    records = drop_variants(select_results(results_dir, dataset))
    settings = read_report_settings()
    ranks = read_test_ranks(records)
    in_paper = any(record.paper is not None for record in records)
    shown = ""
    for name, stem in (("unified", "table"), ("paper", "table-paper")):
        if name == "paper" and not in_paper and protocol != "paper":
            continue
        table = build_table(records, ranks, name, settings, metric=metric, cutoffs=cutoffs)  # type: ignore[arg-type]
        for ending, text in (("md", to_markdown(table)), ("csv", to_csv(table)), ("tex", to_latex(table))):
            write_text(ensure_folder(results_dir / dataset) / f"{stem}.{ending}", text)
        if name == protocol:
            shown = to_terminal(table)
    return shown


def select_results(results_dir: Path, dataset: str) -> list[RunResult]:
    """All records of a dataset.

    Raises:
        ResultError: there are none, or one is broken.
    """
    records = find_results(results_dir, dataset)
    if not records:
        raise ResultError(
            f"no record of dataset {dataset} in {results_dir / dataset}; "
            f"`python benchmarks/run.py --models all --dataset {dataset} --output {results_dir}` makes them"
        )
    return records


def drop_variants(records: Sequence[RunResult]) -> list[RunResult]:
    """Records of whole models; all records where there are only variants. Variants have a table of their own."""
    of = list_all_variants()
    return [record for record in records if record.model not in of] or list(records)


def read_test_ranks(records: Sequence[RunResult]) -> dict[Path, PhaseRanks]:
    """Path of each successful record -> its test ranks.

    Raises:
        ResultError: records may not share a table, a ranks file is broken or has no test part, or two of them rank
            different targets.
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
            raise ResultError(f"ranks {path} have no test part; run the row again with --fresh")
        ranks[record.path] = phases["test"]
        first_path, first = next(iter(ranks.items()))
        if not (np.array_equal(first.user, phases["test"].user) and np.array_equal(first.item, phases["test"].item)):
            raise ResultError(
                f"ranks {path} and those of {first_path} are of different (user, target) pairs; run one of them again "
                "with --fresh"
            )
    return ranks


def group_rows(records: Sequence[RunResult]) -> list[tuple[RunResult, ...]]:
    """Records of one model and preset together, sorted by seed; such a group is a row.

    Raises:
        ResultError: successful seeds of one row have different settings, so that their mean would mean nothing.
    """
    by_row = sorted(records, key=lambda r: (r.label, r.preset, r.seed))
    rows = [tuple(group) for _, group in groupby(by_row, key=lambda r: (r.label, r.preset))]
    for row in rows:
        done = [record for record in row if record.status == "success"]
        for other in done[1:]:
            a, b = ({k: s["value"] for k, s in r.settings.items() if k not in NEUTRAL_KEYS} for r in (done[0], other))
            for key in sorted(a.keys() | b.keys()):
                if a.get(key) != b.get(key):
                    raise ResultError(
                        f"records {done[0].path} and {other.path} are seeds of one row but differ in setting {key} "
                        f"({a.get(key)} and {b.get(key)}); run one of them again with --fresh"
                    )
            _refuse_different_data(done[0], other)
    return rows


def _refuse_different_data(first: RunResult, other: RunResult) -> None:
    """Refuse two seeds of one row that read other features, texts or weights, so that their mean would mean nothing.

    Raises:
        ResultError: it says what differs.
    """
    parts = [list_result_parts(record) for record in (first, other)]
    if parts[0] is None or parts[1] is None:
        return  # recorded by an earlier version, which a footnote says
    kept = [{k: v for k, v in part.items() if not k.startswith(OWN_TO_A_SEED)} for part in parts if part]
    differing = sorted(key for key in kept[0].keys() | kept[1].keys() if kept[0].get(key) != kept[1].get(key))
    if differing:
        raise ResultError(
            f"records {first.path} and {other.path} are seeds of one row but differ in {differing[0]}; run one of them "
            "again with --fresh"
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
    """The table of records that belong together.

    Args:
        records: of one dataset, not empty.
        ranks: from `read_test_ranks`.
        protocol: see the head of this file.
        settings: of the report.
        metric: orders the rows inside a group; None takes it from `settings`.
        cutoffs: the K; None takes those of the records.

    Raises:
        SettingsError: `metric` is neither R@K nor N@K.
        ResultError: seeds of one row have different settings, or a record names an unknown dataset of the paper.
    """
    first = records[0]
    cutoffs = first.cutoffs if cutoffs is None else sorted(set(cutoffs))
    names = tuple(f"{kind}@{k}" for k in cutoffs for kind in "RN")
    sort_metric = settings.sort_metric if metric is None else metric
    if not re.fullmatch(r"[RN]@[1-9][0-9]{0,6}", sort_metric) or int(sort_metric[2:]) > LARGEST_CUTOFF:
        raise SettingsError(
            f"metric {shorten(sort_metric)!r} is neither R@K nor N@K; choose one such as {names[-1]}, with a K of at "
            f"most {LARGEST_CUTOFF:,}"
        )
    groups = group_rows(records)
    finished = [[record for record in group if record.status == "success"] for group in groups]
    policies: dict[Family, Policy] = (
        SOURCE_POLICY if protocol == "paper" else dict.fromkeys(FAMILY_TITLES, first.mask_history)
    )

    per_seed = [[_per_user(ranks, record, policies, cutoffs, names) for record in done] for done in finished]
    numbered = [index for index, done in enumerate(finished) if done]
    cells: dict[int, dict[str, Cell]] = {index: {} for index in range(len(groups))}
    if numbered:
        values = np.stack([np.mean(per_seed[index], axis=0) for index in numbered], axis=1)  # [U, R, M]
        seed_means = [np.array([one.mean(axis=0) for one in per_seed[index]]) for index in numbered]  # R x [S, M]
        cells |= dict(zip(numbered, _cells(values, seed_means, names, settings), strict=True))

    paper = _paper_numbers(records) if protocol == "paper" else {}
    # The order may follow a metric that is not a column, such as N@20 in a table of K = 50.
    worth = [
        np.mean([_per_user(ranks, record, policies, [int(sort_metric[2:])], [sort_metric]) for record in done] or 0.0)
        for done in finished
    ]
    order = sorted(
        range(len(groups)),
        key=lambda index: (
            list(FAMILY_TITLES).index(groups[index][0].family),
            not finished[index],
            -worth[index],
            groups[index][0].label,
        ),
    )
    footnotes = find_footnotes([groups[index] for index in order])
    rows = [
        replace(_row(groups[index], cells[index], paper), marks=list_marks(footnotes, place))
        for place, index in enumerate(order)
    ]
    n_tests = max(len(numbered) - 1, 0) * len(names)
    return Table(
        protocol=protocol,
        metrics=names,
        paper_metrics=tuple(name for name in names if any(name in numbers for numbers in paper.values())),
        rows=tuple(rows),
        notes=(*_notes(records, protocol, policies, cutoffs), *_seed_note(rows)),
        footnotes=tuple(footnotes),
        mark_note=(
            f"the best row of a column is better than its best rival at p < {settings.significance_level:g}: two-sided "
            f"paired bootstrap over users ({settings.n_resamples:,} resamples, seed {settings.bootstrap_seed}; values "
            f"are averaged over seeds first), Holm-corrected over the {n_tests} comparisons of a row with its best "
            "rival in this table."
        ),
        split_hash=first.split_hash,
        stamp=_stamp(records),
    )


def _stamp(records: Sequence[RunResult]) -> str | None:
    """Says that a language model's row stands without the rows that it has to beat first."""
    done = [record for record in records if record.status == "success"]
    missing = [name for name in STRONG_BASELINES if name not in {record.model for record in done}]
    if not missing or not any(record.family == "llm" for record in done):
        return None
    return f"No strong baseline: LLM rows stand here without {_listed(missing)} on the same split."


def _per_user(
    ranks: Mapping[Path, PhaseRanks],
    record: RunResult,
    policies: Mapping[Family, Policy],
    cutoffs: Sequence[int],
    names: Sequence[str],
) -> Floats:
    """[U, M] metrics of each user, sorted by token."""
    assert record.path is not None
    phase = ranks[record.path]
    _, values = metrics.compute_per_user(phase.user, phase.under(policies[record.family]), cutoffs)
    return np.stack([values[name] for name in names], axis=1)


def _cells(
    values: Floats, seed_means: Sequence[Floats], names: Sequence[str], settings: ReportSettings
) -> list[dict[str, Cell]]:
    """Cells of the rows that have numbers.

    Args:
        values: [U, R, M] metrics of each user and row.
        seed_means: for each row [S, M] metrics of each seed.
        names: of the M metrics.
        settings: of the report.
    """
    n_users, n_rows, n_metrics = values.shape
    means = values.mean(axis=0)  # [R, M]
    resampled = bootstrap_means(
        values.reshape(n_users, n_rows * n_metrics), settings.n_resamples, settings.bootstrap_seed
    ).reshape(settings.n_resamples, n_rows, n_metrics)
    low, high = compute_interval(resampled, settings.confidence_level)

    # Every row is compared with the best other row. For all rows but one that is the best row; the best row's own
    # test is the one of its best rival, counted once.
    best = means.argmax(axis=0)  # [M]
    raw = np.full((n_rows, n_metrics), np.nan)
    for column, top in enumerate(best):
        for row in set(range(n_rows)) - {top}:
            difference = means[top, column] - means[row, column]
            raw[row, column] = compute_p_value(difference, resampled[:, top, column] - resampled[:, row, column])
    tested = ~np.isnan(raw)
    adjusted = np.full_like(raw, np.nan)
    adjusted[tested] = correct_holm(raw[tested])
    places = np.zeros((n_rows, n_metrics), dtype=np.int64)
    rivals = np.where(np.arange(n_rows)[:, None] == best, -np.inf, means).argmax(axis=0)  # [M]; itself where alone
    for column, top in enumerate(best):
        if n_rows > 1:
            adjusted[top, column] = adjusted[rivals[column], column]
        for place, value in enumerate(np.unique(means[:, column])[::-1][:2], start=1):
            places[means[:, column] == value, column] = place
    return [
        {
            name: Cell(
                mean=float(means[row, column]),
                sd=float(seed_means[row][:, column].std(ddof=1)) if len(seed_means[row]) > 1 else None,
                low=float(low[row, column]),
                high=float(high[row, column]),
                p=None if n_rows == 1 else float(adjusted[row, column]),
                place=int(places[row, column]),
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


def _paper_numbers(records: Sequence[RunResult]) -> Mapping[str, Mapping[str, float]]:
    """Model -> metric -> number of the paper's Table 1; empty if the dataset is not one of the paper's."""
    columns = {record.paper for record in records} - {None}
    if not columns:
        return {}
    path = find_properties() / "paper" / "table1.yaml"
    table = load_yaml(path)
    if len(columns) > 1 or not columns <= table.keys():
        raise ResultError(
            f"records of {records[0].dataset} name {', '.join(map(str, sorted(columns, key=str)))} as their dataset "
            f"in the paper; {path} has {', '.join(table)}, and one of them is needed"
        )
    numbers: Mapping[str, Mapping[str, float]] = table[str(columns.pop())]
    return numbers


def _row(group: Sequence[RunResult], cells: Mapping[str, Cell], paper: Mapping[str, Mapping[str, float]]) -> Row:
    """One row from the records of its seeds; where none succeeded, the last one says why."""
    done = [record for record in group if record.status == "success"]
    last = group[-1]
    seconds = [record.train_seconds for record in done if record.train_seconds is not None]
    host = [record.peak_memory_bytes["host"] for record in done]
    device = [record.peak_memory_bytes["device"] for record in done]
    return Row(
        family=last.family,
        model=last.label,
        source=last.source,
        preset=last.preset,
        status="success" if done else last.status,
        problem=None if done else _problem(last),
        seeds=tuple(record.seed for record in done),
        cells=cells,
        paper=paper.get(last.model, {}),
        train_seconds=sum(seconds) / len(seconds) if seconds else None,
        host_bytes=max((size for size in host if size is not None), default=None),
        device_bytes=max((size for size in device if size is not None), default=None),
        trainable_parameters=done[0].parameters["trainable"] if done else None,
        total_parameters=done[0].parameters["total"] if done else None,
        search=last.search,
    )


def _problem(record: RunResult) -> str:
    return f"{record.status}: {' '.join((record.reason or '').split())}"


def _notes(
    records: Sequence[RunResult], protocol: Protocol, policies: Mapping[Family, Policy], cutoffs: Sequence[int]
) -> tuple[str, ...]:
    """The sentences that say what the numbers are."""
    first = records[0]
    families = [family for family in FAMILY_TITLES if any(record.family == family for record in records)]
    if protocol == "unified":
        masks = f"Protocol unified: mask policy {first.mask_history} for every row."
    else:
        each = ", ".join(f"{FAMILY_TITLES[family]} {policies[family]}" for family in families)
        masks = f"Protocol paper: mask policy of each family's source ({each})."
    presets, seeds = sorted({r.preset for r in records}), sorted({r.seed for r in records})
    notes = [
        f"{first.dataset}, test part, full ranking over {first.n_candidates:,} candidates, K = {_listed(cutoffs)}.",
        masks,
        f"Split {first.split_kind}, {first.split_hash[:_HASH_DIGITS]}.",
        f"{'Presets' if len(presets) > 1 else 'Preset'} {_listed(presets)}; "
        + (
            f"seeds {_listed(seeds)}; mean \u00b1 sd where a row has several."
            if len(seeds) > 1
            else f"seed {seeds[0]}."
        ),
    ]
    budgets = {record.label: record.search["budget"] for record in records if record.search is not None}
    if budgets:
        alike = len(set(budgets.values())) == 1
        each = _listed([f"{row} {budget}" for row, budget in sorted(budgets.items())])
        kind = "equal budgets" if alike else "UNEQUAL budgets"
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
            notes += [f"{record.label}, seed {record.seed}, {_problem(record)}." for record in others]
    return tuple(notes)


def _seed_note(rows: Sequence[Row]) -> list[str]:
    """Says that rows have different numbers of seeds, so that a mean is steadier in one row than in another."""
    counts: dict[int, list[str]] = {}
    for row in rows:
        if row.seeds:
            counts.setdefault(len(row.seeds), []).append(row.model)
    if len(counts) < 2:
        return []
    most = max(counts, key=lambda count: len(counts[count]))
    others = [f"{model} {count}" for count in sorted(counts) if count != most for model in counts[count]]
    return [
        f"Numbers of seeds differ ({_listed(others)}, all others {most}), so no star stands between a row and a rival "
        "with another number of seeds."
    ]


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


# Output forms. A `_Style` says how one of them writes marks; the cells are the same for all.


@dataclass(frozen=True)
class _Style:
    """How an output form writes text, the best, the second, a deviation, the star, a missing value and footnotes."""

    text: Callable[[str], str]
    best: str
    second: str
    plus_minus: str
    mark: str
    missing: str
    letters: str


def _header(table: Table) -> list[str]:
    header = ["Model", *(["Preset"] if table.several_presets else [])]
    for name in table.metrics:
        header += [name, *([f"paper {name}"] if name in table.paper_metrics else [])]
    header += ["Seeds", "Training", "Host memory", *(["Device memory"] if table.on_device else []), "Parameters"]
    return [*header, *(["Search"] if table.searched else [])]


def _line(table: Table, row: Row, style: _Style) -> list[str]:
    """The row in the columns of `_header`; of a row without numbers, only the names and the problem."""
    letters = style.letters.format(",".join(row.marks)) if row.marks else ""
    line = [style.text(row.model) + letters, *([style.text(row.preset)] if table.several_presets else [])]
    if row.problem is not None:
        return [*line, style.text(row.problem)]
    for name in table.metrics:
        line.append(_number(row.cells[name], style))
        if name in table.paper_metrics:
            line.append(f"{row.paper[name]:.4f}" if name in row.paper else style.missing)
    line += [
        str(len(row.seeds)),
        _scaled(row.train_seconds, _SECONDS) or style.missing,
        _scaled(row.host_bytes, _BYTES) or style.missing,
    ]
    if table.on_device:
        line.append(_scaled(row.device_bytes, _BYTES) or style.missing)
    parameters = row.trainable_parameters
    line.append(style.missing if parameters is None else f"{parameters:,}")
    if table.searched:
        line.append(style.missing if row.search is None else style.text(row.search["budget"]))
    return line


def _number(cell: Cell, style: _Style) -> str:
    number = {0: "{}", 1: style.best, 2: style.second}[cell.place].format(f"{cell.mean:.4f}")
    mark = style.mark if cell.significant else ""
    return number + mark + ("" if cell.sd is None else f"{style.plus_minus}{cell.sd:.4f}")


def _scaled(value: float | None, units: Sequence[tuple[float, str]]) -> str | None:
    """A size in the largest unit that it fills, "12.3 min"."""
    if value is None:
        return None
    size, unit = next((pair for pair in units if value >= pair[0]), units[-1])
    return f"{value / size:.1f} {unit}"


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", strip_controls(text))


def escape_csv(line: Sequence[object]) -> list[object]:
    """The cells of a CSV line as they are, but for texts that a spreadsheet would take for a formula.

    Those get an apostrophe in front, which spreadsheets take for the mark of a text. Control characters are dropped.

    >>> escape_csv(["=1+1", "@x", -0.5, None, "LightGCN"])
    ["'=1+1", "'@x", -0.5, None, 'LightGCN']
    """
    texts = [strip_controls(cell) if isinstance(cell, str) else cell for cell in line]
    return [f"'{cell}" if isinstance(cell, str) and cell.lstrip().startswith(_FORMULA) else cell for cell in texts]


_MARKDOWN = _Style(_markdown_text, "**{}**", "<u>{}</u>", " \u00b1 ", "\\*", "\u2013", " <sup>{}</sup>")


def to_markdown(table: Table) -> str:
    """The table as GitHub Markdown, with its caption below."""
    header = ["Group", *_header(table)]
    lines, group = [], ""
    for row in table.rows:
        line = ["" if FAMILY_TITLES[row.family] == group else FAMILY_TITLES[row.family], *_line(table, row, _MARKDOWN)]
        lines.append(line + [""] * (len(header) - len(line)))
        group = FAMILY_TITLES[row.family]
    align = ["left", "left", *["right"] * (len(header) - 2)]
    text = tabulate(lines, header, tablefmt="github", disable_numparse=True, colalign=align)
    caption = [*map(_markdown_text, table.notes), "**Best**, <u>second</u> of a column.", f"\\* {table.mark_note}"]
    stamp = "" if table.stamp is None else f"**{_markdown_text(table.stamp)}**\n\n"
    below = "".join(f"- {_markdown_text(str(footnote))}\n" for footnote in table.footnotes)
    return f"{stamp}{text}\n\n{' '.join(caption)}\n" + (f"\n{below}" if below else "")


def to_csv(table: Table) -> str:
    """Plain numbers at full precision; an empty field is a missing value.

    `<metric>_p` is the Holm-corrected p-value of a row against its best rival; `_low` and `_high` end the bootstrap
    interval.
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


def _latex_text(text: str) -> str:
    """ASCII LaTeX that prints `text`; letters lose accents, and what has no ASCII form becomes a question mark."""
    escaped = []
    for char in text:
        if char in _LATEX_ESCAPES:
            escaped.append(_LATEX_ESCAPES[char])
        else:
            plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
            escaped.append("".join(_LATEX_ESCAPES.get(part, part) for part in plain) or "?")
    return "".join(escaped)


_LATEX = _Style(_latex_text, r"\textbf{{{}}}", r"\underline{{{}}}", r" $\pm$ ", "$^{*}$", "--", "$^{{{}}}$")


def to_latex(table: Table) -> str:
    r"""A `table` environment; the document needs `\usepackage{booktabs}` and nothing else."""
    header = _header(table)
    names = 2 if table.several_presets else 1
    lines = []
    for family, rows in groupby(table.rows, key=lambda row: row.family):
        lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{FAMILY_TITLES[family]}}}}} \\"]
        for row in rows:
            line = _line(table, row, _LATEX)
            if row.problem is not None:
                line[names] = rf"\multicolumn{{{len(header) - names}}}{{l}}{{{line[names]}}}"
            lines.append(" & ".join(line) + r" \\")
    stamp = [] if table.stamp is None else [rf"\textbf{{{_latex_text(table.stamp)}}}"]
    caption = [*stamp, *map(_latex_text, table.notes), r"\textbf{Best}, \underline{second} of a column."]
    caption.append(f"$^{{*}}$ {_latex_text(table.mark_note)}")
    caption += [_latex_text(str(footnote)) for footnote in table.footnotes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\scriptsize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{' '.join(caption)}}}",
            rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(header) - names)}}}",
            r"\toprule",
            " & ".join(map(_latex_text, header)) + r" \\",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def to_terminal(table: Table, width: int | None = None) -> str:
    """A short view: the two largest cut-offs (one if the terminal is narrow) and the time; files hold the rest.

    The number of seeds has a column where a row has several; notes name a single one.

    Args:
        table: what to print.
        width: columns; None takes the terminal's.
    """
    console = Console(width=width, highlight=False)
    shown = table.metrics[-4 if console.width >= _WIDE else -2 :]
    view = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    view.add_column("Model", overflow="fold")
    for name in ("Preset",) if table.several_presets else ():
        view.add_column(name, overflow="fold")
    several_seeds = any(len(row.seeds) > 1 for row in table.rows)
    for name in (*shown, *(("Seeds",) if several_seeds else ()), "Training"):
        view.add_column(name, justify="right", no_wrap=True)
    below = [strip_controls(f"{row.model}: {row.problem}") for row in table.rows if row.problem is not None]
    for family, rows in groupby(table.rows, key=lambda row: row.family):
        view.add_row(f"[italic]{FAMILY_TITLES[family]}[/]")
        for row in rows:
            letters = f" ({','.join(row.marks)})" if row.marks else ""
            names = [f" {row.model}{letters}", *([row.preset] if table.several_presets else [])]
            names = [f" {strip_controls(names[0]).strip()}", *map(strip_controls, names[1:])]
            if row.problem is not None:
                view.add_row(*map(rich.markup.escape, names), f"[red]{row.status}[/red]")
                continue
            numbers = [_terminal_number(row, name, name in table.paper_metrics) for name in shown]
            training = _scaled(row.train_seconds, _SECONDS) or "\u2013"
            seeds = [str(len(row.seeds))] if several_seeds else []
            view.add_row(*map(rich.markup.escape, names), *numbers, *seeds, training)
    notes = [*([] if table.stamp is None else [table.stamp]), *below, *table.notes]
    if table.paper_metrics:
        notes.append("In parentheses: the paper's number.")
    notes += ["\u00b9 best (bold), \u00b2 second (underlined) of a column.", f"* {table.mark_note}"]
    notes += [f"({footnote.mark}) {footnote.text}." if footnote.mark else str(footnote) for footnote in table.footnotes]
    with console.capture() as capture:
        console.print(view)
        console.print("\n".join(map(strip_controls, notes)), markup=False)
    return capture.get()


def _terminal_number(row: Row, name: str, with_paper: bool) -> str:
    """Number and marks, then the deviation, then the paper's number, on lines of their own."""
    cell = row.cells[name]
    mark, emphasis = _TERMINAL_MARKS.get(cell.place, (" ", ""))
    lines = [f"[{emphasis}]{cell.mean:.4f}[/]" if emphasis else f"{cell.mean:.4f}"]
    lines[0] += mark + ("*" if cell.significant else " ")
    if cell.sd is not None:
        lines.append(f"\u00b1{cell.sd:.4f}  ")
    if with_paper:
        lines.append(f"({row.paper[name]:.4f}) " if name in row.paper else "(\u2013) ")
    return "\n".join(lines)
