"""The report: one HTML page for a dataset that opens without a network, made from records, ranks and searches alone.

Figures are written as SVG and PNG beside it and stand in the page as images of their own; every value that comes from a
record passes through Jinja's escaping.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from hellm_recbole import __version__
from hellm_recbole.evaluation import metrics
from hellm_recbole.evaluation.significance import bootstrap_means, compute_interval, compute_p_value
from hellm_recbole.experiments.results import PhaseRanks, Policy, RunResult
from hellm_recbole.experiments.sweeps import SearchResult, find_searches
from hellm_recbole.report import figures
from hellm_recbole.report.ablation import AblationRow, build_ablation_rows
from hellm_recbole.report.figures import Panel, Series
from hellm_recbole.report.slices import average_slices, slice_by_history, slice_by_popularity
from hellm_recbole.report.studies import draw_study
from hellm_recbole.report.tables import (
    FAMILY_TITLES,
    ReportSettings,
    Table,
    build_table,
    drop_variants,
    group_rows,
    read_report_settings,
    read_test_ranks,
    select_results,
)
from hellm_recbole.system.files import ensure_folder, write_text

PAGE_FILE = "report.html"
FIGURES = "figures"
LARGEST_K = 50  # of the curves over K, unless a larger one was asked for
MASKED: dict[Policy, str] = {
    "seen": "what a user had before is masked, for every row",
    "train": "what a user had in training is masked, for every row",
    "none": "nothing is masked, for any row",
}
TEMPLATE = "page.html.jinja"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """A figure in the page."""

    title: str
    caption: str
    source: str


@dataclass(frozen=True)
class Finished:
    """A row with numbers: its seeds, and its place among the rows."""

    name: str
    place: int
    records: tuple[RunResult, ...]
    ranks: tuple[PhaseRanks, ...]

    def per_user(self, cutoffs: Sequence[int]) -> dict[str, Floats]:
        """Metric -> [U] value of each user, averaged over seeds."""
        each = [
            metrics.compute_per_user(phase.user, phase.under(self.records[0].mask_history), cutoffs)[1]
            for phase in self.ranks
        ]
        return {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}


def write_report(
    results_dir: Path, dataset: str, *, metric: str | None = None, cutoffs: Sequence[int] | None = None
) -> Path:
    """Write `report.html` and `figures/` of a dataset; the path of the page.

    Args:
        results_dir: holds `<dataset>/<row>/<seed>/record.json`.
        dataset: name.
        metric: orders the rows inside a group; None takes it from `properties/report.yaml`.
        cutoffs: the K; None takes those of the records.

    Raises:
        ResultError: there are no records, one is broken, or they may not share a table.
        OutputError: a file cannot be written.
    """
    every = select_results(results_dir, dataset)
    settings = read_report_settings()
    ranks = read_test_ranks(every)
    records = drop_variants(every)
    chosen = tuple(every[0].cutoffs if cutoffs is None else sorted(set(cutoffs)))
    table = build_table(records, ranks, "unified", settings, metric=metric, cutoffs=chosen)
    papers = None
    if any(record.paper is not None for record in records):
        papers = build_table(records, ranks, "paper", settings, metric=metric, cutoffs=chosen)
    rows = _finished(table, records, ranks)
    parts = build_ablation_rows([record for record in every if record.search is None], ranks, chosen, settings)
    folder = ensure_folder(results_dir / dataset) / FIGURES
    shown = [
        _shown(folder, name, title, caption, figure)
        for name, title, caption, figure in (
            *_run_figures(rows, chosen, settings),
            *_ablation_figures(parts, chosen, settings),
            *_sweep_figures(find_searches(results_dir, dataset)),
        )
    ]
    page = _template().render(
        dataset=dataset,
        version=__version__,
        card=_card(records),
        table=table,
        families=FAMILY_TITLES,
        papers=papers,
        figures=shown,
        ablation=parts,
        pairs=pairs(rows, chosen, settings),
    )
    path = results_dir / dataset / PAGE_FILE
    write_text(path, page)
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hellm_recbole.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(TEMPLATE)


def _finished(table: Table, records: Sequence[RunResult], ranks: Mapping[Path, PhaseRanks]) -> list[Finished]:
    """The rows of the table that have numbers, in its order."""
    groups = {(group[0].label, group[0].preset): group for group in group_rows(records)}
    rows: list[Finished] = []
    for row in table.rows:
        done = tuple(record for record in groups[row.model, row.preset] if record.path in ranks)
        if done:
            name = f"{row.model} ({row.preset})" if table.several_presets else row.model
            rows.append(Finished(name, len(rows), done, tuple(ranks[record.path] for record in done if record.path)))
    return rows


def _card(records: Sequence[RunResult]) -> list[tuple[str, str]]:
    """What the rows have in common."""
    first = records[0]
    counts = first.counts
    kept = f"{first.filter['k_core']}-core, {first.filter['dropped']:,} interactions dropped"
    searches = sorted({record.search["budget"] for record in records if record.search is not None})
    return [
        ("Data", f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions"),
        ("Filter", kept if first.filter["k_core"] else "none"),
        (
            "Split",
            f"{first.split_kind}: {counts['train']:,} train, {counts['valid']:,} validation, {counts['test']:,} test",
        ),
        ("Split hash", first.split_hash),
        ("Candidates", f"all {first.n_candidates:,} items"),
        ("Mask policy", f"{first.mask_history}: {MASKED[first.mask_history]}"),
        ("K", ", ".join(map(str, first.cutoffs))),
        ("Seeds", ", ".join(map(str, sorted({record.seed for record in records})))),
        ("Presets", ", ".join(sorted({record.preset for record in records}))),
        ("Search budget", ", ".join(searches) if searches else "no row was searched"),
        ("Modalities", ", ".join(sorted({name for record in records for name in record.modalities})) or "none"),
    ]


Drawn = tuple[str, str, str, Any]


def _run_figures(rows: Sequence[Finished], cutoffs: Sequence[int], settings: ReportSettings) -> list[Drawn]:
    """Figures of the rows of the table: over K, over training, against cost, by slice."""
    if not rows:
        return []
    k = max(cutoffs)
    every_k = range(1, max(LARGEST_K, k) + 1)
    over_k = {row.name: {name: float(value.mean()) for name, value in row.per_user(every_k).items()} for row in rows}
    drawn: list[Drawn] = []
    panels = [
        Panel(
            title,
            "K",
            f"{title}@K",
            [
                Series(row.name, row.place, list(every_k), [over_k[row.name][f"{kind}@{n}"] for n in every_k])
                for row in rows
            ],
        )
        for kind, title in (("R", "Recall"), ("N", "NDCG"))
    ]
    drawn.append(("over-k", "Recall and NDCG over K", "Test part, from the saved ranks.", figures.draw_lines(panels)))
    drawn += _learning(rows)
    valued = [(row, over_k[row.name][f"N@{k}"]) for row in rows]
    drawn += _costs(valued, k)
    drawn += _slices(rows, k, settings)
    return drawn


def _learning(rows: Sequence[Finished]) -> list[Drawn]:
    """Validation over epochs and over time; of each row its first seed."""
    by_epoch, by_time, chosen_by = [], [], set()
    for row in rows:
        record = row.records[0]
        metric = str(record.settings["valid_metric"]["value"])
        points = [(entry["epoch"], entry["valid"].get(metric)) for entry in record.curve]
        seconds = np.cumsum([entry["seconds"] for entry in record.curve])
        kept = [
            (epoch, float(spent) / 60, value)
            for (epoch, value), spent in zip(points, seconds, strict=True)
            if value is not None
        ]
        if len(kept) > 1:
            chosen_by.add(metric)
            epochs, minutes, values = zip(*kept, strict=True)
            by_epoch.append(Series(row.name, row.place, epochs, values))
            by_time.append(Series(row.name, row.place, minutes, values))
    if not by_epoch:
        return []
    label = f"{' or '.join(sorted(chosen_by))}, validation"
    panels = [
        Panel("by epoch", "epoch", label, by_epoch, log_x=True),
        Panel("by time", "training time (min)", label, by_time, log_x=True),
    ]
    caption = "Validation part; the first seed of each row. Rows of a single epoch are left out."
    return [("learning", "Learning curves", caption, figures.draw_lines(panels))]


def _costs(valued: Sequence[tuple[Finished, float]], k: int) -> list[Drawn]:
    """Accuracy against training time and memory."""
    panels = []
    for title, label, cost in (
        ("time", "training time (min)", lambda r: None if r.train_seconds is None else r.train_seconds / 60),
        ("memory", "peak memory (GiB)", _memory_gib),
    ):
        series = []
        for row, value in valued:
            costs = [one for one in map(cost, row.records) if one is not None]
            if len(costs) == len(row.records):
                series.append(Series(row.name, row.place, [float(np.mean(costs))], [value]))
        if series:
            log = figures.spans_decades([one.x[0] for one in series])
            panels.append(Panel(f"against {title}", label, f"N@{k}, test", series, log_x=log))
    if not panels:
        return []
    caption = (
        "Up and left is better; the grey line joins the rows that no other row beats on both. Memory is the device's "
        "where one was used, else the process's."
    )
    return [("cost", "Accuracy against cost", caption, figures.draw_scatter(panels))]


def _memory_gib(record: RunResult) -> float | None:
    used = record.peak_memory_bytes["device"] or record.peak_memory_bytes["host"]
    return None if used is None else used / 2**30


def _slices(rows: Sequence[Finished], k: int, settings: ReportSettings) -> list[Drawn]:
    """Recall by history length and by popularity of the target."""
    test = rows[0].ranks[0]
    panels = []
    for title, groups in (
        ("by history length", slice_by_history(test.history_length, settings.history_quantiles)),
        ("by the target's popularity", slice_by_popularity(test.item_count, settings.popularity_quantiles)),
    ):
        series = []
        for row in rows:
            values = [
                average_slices(row.ranks, row.records[0].mask_history, mask, [k])[f"R@{k}"] for mask in groups.values()
            ]
            series.append(Series(row.name, row.place, list(range(len(groups))), values))
        names = [name.removeprefix("history ").replace(" items", "") for name in groups]
        unit = "interactions before" if "history" in title else "items, by training interactions"
        panels.append(Panel(title, unit, f"R@{k}, test", series, ticks=names))
    caption = "Groups of users by history length, and of targets by how often they occur in training (cold: never)."
    return [("slices", "Slices", caption, figures.draw_lines(panels, points=True))]


def _ablation_figures(parts: Sequence[AblationRow], cutoffs: Sequence[int], settings: ReportSettings) -> list[Drawn]:
    """One figure of bars for each model with variants, if it has any hits to lose."""
    drawn: list[Drawn] = []
    told = f"R@{max(cutoffs)}"
    groups: list[tuple[AblationRow, list[AblationRow]]] = []
    for row in parts:
        if row.change is None:
            groups.append((row, []))
        else:
            groups[-1][1].append(row)
    for whole, rows in groups:
        model, base = whole.model, whole.means[told]
        if not rows or not base:
            continue
        spans = [(row.low or 0.0, row.high or 0.0) for row in rows]
        figure = figures.draw_bars(
            f"{model} = {base:.4f}",
            f"change of {told}, test (%), with {settings.confidence_level:.0%} interval",
            [f"{row.model.partition('@')[0]}{'*' if row.starred else ''}" for row in rows],
            [100 * (row.change or 0.0) for row in rows],
            [(100 * low, 100 * high) for low, high in spans],
        )
        caption = f"* differs from the whole model at p < {settings.significance_level:g}, Holm-corrected."
        drawn.append((f"ablation-{_stem(model)}", f"What the parts of {model} are worth", caption, figure))
    return drawn


def _sweep_figures(sweeps: Sequence[SearchResult]) -> list[Drawn]:
    """The trials of each search, and each study."""
    drawn: list[Drawn] = []
    for sweep in sweeps:
        name = name_figure(sweep)
        if (study := draw_study(sweep)) is not None:
            drawn.append((name, study.title, study.caption, study.figure))
            continue
        reported = [trial for trial in sweep.trials if trial["curve"]]
        best = sweep.best if reported else None
        series = [
            Series(
                f"trial {trial['number']}" if trial is best else trial["status"],
                0 if trial is best else 4 if trial["status"] == "ended" else 1,
                [point[0] for point in trial["curve"]],
                [point[1] for point in trial["curve"]],
            )
            for trial in sorted(reported, key=lambda trial: trial is best)
        ]
        if series:
            panel = Panel(sweep.row, "epoch", f"{sweep.valid_metric}, validation", series, log_x=True)
            caption = f"{len(sweep.trials)} trials, {sweep.budget}, scheduler {sweep.scheduler}, search {sweep.search}."
            drawn.append((name, f"Search of {sweep.row}", caption, figures.draw_lines([panel])))
    return drawn


def name_figure(sweep: SearchResult) -> str:
    """File name of a search's figure, without ending."""
    return f"{_stem(sweep.row)}-{_stem(sweep.name)}"


def _stem(name: str) -> str:
    """A file name: letters, digits, dots and dashes.

    >>> _stem("HeLLM@a/b")
    'HeLLM-a-b'
    """
    return "".join(char if char.isalnum() or char in ".-" else "-" for char in name)


def _shown(folder: Path, name: str, title: str, caption: str, figure: Any) -> Shown:
    path = figures.write_figure(folder, name, figure)
    source = base64.b64encode(path.read_bytes()).decode("ascii")
    return Shown(title, caption, f"data:image/svg+xml;base64,{source}")


def pairs(rows: Sequence[Finished], cutoffs: Sequence[int], settings: ReportSettings) -> dict[str, Any]:
    """Wins and losses of every two rows over users, for the page's script.

    Returns:
        `names`; `metric`; `versus`: for i < j at place i, j - i - 1 the users for whom i is better, as good and worse,
        the mean difference, its interval and its uncorrected p-value.
    """
    name = f"N@{max(cutoffs)}"
    if len(rows) < 2:
        return {"names": [row.name for row in rows], "metric": name, "versus": []}
    values = np.stack([row.per_user([max(cutoffs)])[name] for row in rows], axis=1)
    resampled = bootstrap_means(values, settings.n_resamples, settings.bootstrap_seed)
    versus = []
    for i in range(len(rows)):
        line = []
        for j in range(i + 1, len(rows)):
            difference = values[:, i] - values[:, j]
            drawn = resampled[:, i] - resampled[:, j]
            low, high = compute_interval(drawn, settings.confidence_level)
            line.append(
                {
                    "wins": int((difference > 0).sum()),
                    "ties": int((difference == 0).sum()),
                    "losses": int((difference < 0).sum()),
                    "mean": float(difference.mean()),
                    "low": float(low),
                    "high": float(high),
                    "p": compute_p_value(float(difference.mean()), drawn),
                }
            )
        versus.append(line)
    return {"names": [row.name for row in rows], "metric": name, "versus": versus}
