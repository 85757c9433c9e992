"""The report: one HTML page for a dataset, made only from run results, saved ranks and search results.

The page opens without a network, because it contains its figures. They are also written as SVG and PNG files into a
folder next to the page. Jinja escapes every value that comes from a run result.
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
LARGEST_K = 50  # the curves over K end here, or at the largest requested cut-off if that is larger
MASKED: dict[Policy, str] = {
    "seen": "what a user had before is masked, for every row",
    "train": "what a user had in training is masked, for every row",
    "none": "nothing is masked, for any row",
}
TEMPLATE = "page.html.jinja"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page.

    Attributes:
        title: text above the figure.
        caption: text below it.
        source: the SVG file as a data URL.
    """

    title: str
    caption: str
    source: str


@dataclass(frozen=True)
class FinishedRow:
    """A row of the table that has a successful run.

    Attributes:
        name: label of the model, with the preset if rows have different ones.
        index: number of the row among the finished rows, from 0.
        records: results of its successful runs, one for each seed.
        ranks: test ranks of these runs, in the same order.
    """

    name: str
    index: int
    records: tuple[RunResult, ...]
    ranks: tuple[PhaseRanks, ...]

    def compute_per_user(self, cutoffs: Sequence[int]) -> dict[str, Floats]:
        """Compute the metrics of each user, averaged over seeds: metric -> [U]."""
        seed_values = [
            metrics.compute_per_user(phase.user, phase.get_ranks(self.records[0].mask_history), cutoffs)[1]
            for phase in self.ranks
        ]
        return {name: np.mean([values[name] for values in seed_values], axis=0) for name in seed_values[0]}


def write_report(
    results_dir: Path, dataset: str, *, metric: str | None = None, cutoffs: Sequence[int] | None = None
) -> Path:
    """Write `report.html` and the folder `figures/` of a dataset.

    Args:
        results_dir: folder that contains `<dataset>/<model>/<seed>/record.json`.
        dataset: name of the dataset.
        metric: metric that orders the rows inside a group; None takes the one in `properties/report.yaml`.
        cutoffs: cut-offs K; None takes those of the runs.

    Returns:
        Path of the page.

    Raises:
        ResultError: there are no run results, one is broken, or the runs cannot be compared in one table.
        OutputError: a file cannot be written.
    """
    all_records = select_results(results_dir, dataset)
    settings = read_report_settings()
    ranks = read_test_ranks(all_records)
    records = drop_variants(all_records)
    chosen_cutoffs = tuple(all_records[0].cutoffs if cutoffs is None else sorted(set(cutoffs)))
    table = build_table(records, ranks, "unified", settings, metric=metric, cutoffs=chosen_cutoffs)
    paper_table = None
    if any(record.paper is not None for record in records):
        paper_table = build_table(records, ranks, "paper", settings, metric=metric, cutoffs=chosen_cutoffs)
    rows = _find_finished_rows(table, records, ranks)
    ablation = build_ablation_rows(
        [record for record in all_records if record.search is None], ranks, chosen_cutoffs, settings
    )
    folder = ensure_folder(results_dir / dataset) / FIGURES
    page_figures = [
        _write_page_figure(folder, name, title, caption, figure)
        for name, title, caption, figure in (
            *_draw_run_figures(rows, chosen_cutoffs, settings),
            *_draw_ablation_figures(ablation, chosen_cutoffs, settings),
            *_draw_search_figures(find_searches(results_dir, dataset)),
        )
    ]
    page = _load_template().render(
        dataset=dataset,
        version=__version__,
        protocol=_describe_protocol(records),
        table=table,
        families=FAMILY_TITLES,
        paper_table=paper_table,
        figures=page_figures,
        ablation=ablation,
        pairs=compare_pairs(rows, chosen_cutoffs, settings),
    )
    path = results_dir / dataset / PAGE_FILE
    write_text(path, page)
    return path


def _load_template() -> jinja2.Template:
    """Load the template of the page; it escapes all values and refuses undefined ones."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hellm_recbole.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(TEMPLATE)


def _find_finished_rows(
    table: Table, records: Sequence[RunResult], ranks: Mapping[Path, PhaseRanks]
) -> list[FinishedRow]:
    """Find the rows of the table that have a successful run, in the order of the table."""
    groups = {(group[0].label, group[0].preset): group for group in group_rows(records)}
    rows: list[FinishedRow] = []
    for row in table.rows:
        successful = tuple(record for record in groups[row.model, row.preset] if record.path in ranks)
        if successful:
            name = f"{row.model} ({row.preset})" if table.several_presets else row.model
            rows.append(
                FinishedRow(
                    name, len(rows), successful, tuple(ranks[record.path] for record in successful if record.path)
                )
            )
    return rows


def _describe_protocol(records: Sequence[RunResult]) -> list[tuple[str, str]]:
    """List names and values of the section "Protocol": data, split and evaluation, which are the same for all rows."""
    first = records[0]
    counts = first.counts
    k_core = f"{first.filter['k_core']}-core, {first.filter['dropped']:,} interactions dropped"
    searches = sorted({record.search["budget"] for record in records if record.search is not None})
    return [
        ("Data", f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions"),
        ("Filter", k_core if first.filter["k_core"] else "none"),
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


NamedFigure = tuple[str, str, str, Any]  # file name without ending, title, caption, figure


def _draw_run_figures(
    rows: Sequence[FinishedRow], cutoffs: Sequence[int], settings: ReportSettings
) -> list[NamedFigure]:
    """Draw the figures of the finished rows: metrics over K, learning curves, accuracy against cost, and slices."""
    if not rows:
        return []
    k = max(cutoffs)
    every_k = range(1, max(LARGEST_K, k) + 1)
    over_k = {
        row.name: {name: float(value.mean()) for name, value in row.compute_per_user(every_k).items()} for row in rows
    }
    named_figures: list[NamedFigure] = []
    panels = [
        Panel(
            title,
            "K",
            f"{title}@K",
            [
                Series(row.name, row.index, list(every_k), [over_k[row.name][f"{kind}@{n}"] for n in every_k])
                for row in rows
            ],
        )
        for kind, title in (("R", "Recall"), ("N", "NDCG"))
    ]
    named_figures.append(
        ("over-k", "Recall and NDCG over K", "Test part, from the saved ranks.", figures.draw_lines(panels))
    )
    named_figures += _draw_learning_curves(rows)
    accuracies = [(row, over_k[row.name][f"N@{k}"]) for row in rows]
    named_figures += _draw_costs(accuracies, k)
    named_figures += _draw_slices(rows, k, settings)
    return named_figures


def _draw_learning_curves(rows: Sequence[FinishedRow]) -> list[NamedFigure]:
    """Draw the validation metric over epochs and over time, for the first seed of each row."""
    by_epoch, by_time, metrics_used = [], [], set()
    for row in rows:
        record = row.records[0]
        metric = str(record.settings["valid_metric"]["value"])
        points = [(entry["epoch"], entry["valid"].get(metric)) for entry in record.curve]
        seconds = np.cumsum([entry["seconds"] for entry in record.curve])
        measured = [
            (epoch, float(spent) / 60, value)
            for (epoch, value), spent in zip(points, seconds, strict=True)
            if value is not None
        ]
        if len(measured) > 1:
            metrics_used.add(metric)
            epochs, minutes, values = zip(*measured, strict=True)
            by_epoch.append(Series(row.name, row.index, epochs, values))
            by_time.append(Series(row.name, row.index, minutes, values))
    if not by_epoch:
        return []
    label = f"{' or '.join(sorted(metrics_used))}, validation"
    panels = [
        Panel("by epoch", "epoch", label, by_epoch, log_x=True),
        Panel("by time", "training time (min)", label, by_time, log_x=True),
    ]
    caption = "Validation part; the first seed of each row. Rows of a single epoch are left out."
    return [("learning", "Learning curves", caption, figures.draw_lines(panels))]


def _draw_costs(accuracies: Sequence[tuple[FinishedRow, float]], k: int) -> list[NamedFigure]:
    """Draw accuracy against training time and against memory.

    Args:
        accuracies: rows with their test NDCG@k.
        k: cut-off K of the accuracy.
    """
    panels = []
    for title, label, measure in (
        ("time", "training time (min)", lambda r: None if r.train_seconds is None else r.train_seconds / 60),
        ("memory", "peak memory (GiB)", _measure_memory_gib),
    ):
        series = []
        for row, value in accuracies:
            costs = [cost for cost in map(measure, row.records) if cost is not None]
            if len(costs) == len(row.records):
                series.append(Series(row.name, row.index, [float(np.mean(costs))], [value]))
        if series:
            log_x = figures.spans_decades([points.x[0] for points in series])
            panels.append(Panel(f"against {title}", label, f"N@{k}, test", series, log_x=log_x))
    if not panels:
        return []
    caption = (
        "Up and left is better; the grey line joins the rows that no other row beats on both. Memory is the device's "
        "where one was used, else the process's."
    )
    return [("cost", "Accuracy against cost", caption, figures.draw_scatter(panels))]


def _measure_memory_gib(record: RunResult) -> float | None:
    """Return the peak memory of a run in GiB: of the device if one was used, otherwise of the process."""
    used = record.peak_memory_bytes["device"] or record.peak_memory_bytes["host"]
    return None if used is None else used / 2**30


def _draw_slices(rows: Sequence[FinishedRow], k: int, settings: ReportSettings) -> list[NamedFigure]:
    """Draw Recall by history length of the user and by popularity of the target."""
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
            series.append(Series(row.name, row.index, list(range(len(groups))), values))
        names = [name.removeprefix("history ").replace(" items", "") for name in groups]
        unit = "interactions before" if "history" in title else "items, by training interactions"
        panels.append(Panel(title, unit, f"R@{k}, test", series, ticks=names))
    caption = "Groups of users by history length, and of targets by how often they occur in training (cold: never)."
    return [("slices", "Slices", caption, figures.draw_lines(panels, points=True))]


def _draw_ablation_figures(
    ablation: Sequence[AblationRow], cutoffs: Sequence[int], settings: ReportSettings
) -> list[NamedFigure]:
    """Draw one figure of bars for each model with variants; a model without any hit has none."""
    named_figures: list[NamedFigure] = []
    metric = f"R@{max(cutoffs)}"
    groups: list[tuple[AblationRow, list[AblationRow]]] = []
    for row in ablation:
        if row.change is None:
            groups.append((row, []))
        else:
            groups[-1][1].append(row)
    for whole, rows in groups:
        model, base = whole.model, whole.means[metric]
        if not rows or not base:
            continue
        spans = [(row.low or 0.0, row.high or 0.0) for row in rows]
        figure = figures.draw_bars(
            f"{model} = {base:.4f}",
            f"change of {metric}, test (%), with {settings.confidence_level:.0%} interval",
            [f"{row.model.partition('@')[0]}{'*' if row.starred else ''}" for row in rows],
            [100 * (row.change or 0.0) for row in rows],
            [(100 * low, 100 * high) for low, high in spans],
        )
        caption = f"* differs from the whole model at p < {settings.significance_level:g}, Holm-corrected."
        named_figures.append(
            (f"ablation-{_to_file_name(model)}", f"What the parts of {model} are worth", caption, figure)
        )
    return named_figures


def _draw_search_figures(searches: Sequence[SearchResult]) -> list[NamedFigure]:
    """Draw the trials of each search, and the figure of each study."""
    named_figures: list[NamedFigure] = []
    for result in searches:
        name = name_figure(result)
        if (study := draw_study(result)) is not None:
            named_figures.append((name, study.title, study.caption, study.figure))
            continue
        reported = [trial for trial in result.trials if trial["curve"]]
        best = result.best if reported else None
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
            panel = Panel(result.row, "epoch", f"{result.valid_metric}, validation", series, log_x=True)
            caption = (
                f"{len(result.trials)} trials, {result.budget}, scheduler {result.scheduler}, search {result.search}."
            )
            named_figures.append((name, f"Search of {result.row}", caption, figures.draw_lines([panel])))
    return named_figures


def name_figure(result: SearchResult) -> str:
    """Return the file name of a search's figure, without ending."""
    return f"{_to_file_name(result.row)}-{_to_file_name(result.name)}"


def _to_file_name(name: str) -> str:
    """Turn a name into a file name of letters, digits, dots and dashes.

    >>> _to_file_name("HeLLM@a/b")
    'HeLLM-a-b'
    """
    return "".join(char if char.isalnum() or char in ".-" else "-" for char in name)


def _write_page_figure(folder: Path, name: str, title: str, caption: str, figure: Any) -> PageFigure:
    """Write a figure into its folder and return it for the page."""
    path = figures.write_figure(folder, name, figure)
    source = base64.b64encode(path.read_bytes()).decode("ascii")
    return PageFigure(title, caption, f"data:image/svg+xml;base64,{source}")


def compare_pairs(rows: Sequence[FinishedRow], cutoffs: Sequence[int], settings: ReportSettings) -> dict[str, Any]:
    """Compare every two rows user by user, for the page's script.

    Args:
        rows: finished rows.
        cutoffs: cut-offs K; the rows are compared in NDCG at the largest one.
        settings: settings of the bootstrap.

    Returns:
        `names` of the rows, name of the `metric`, and `versus`. For i < j, `versus[i][j - i - 1]` compares row i with
        row j: the numbers of users for whom row i is better, equal and worse, the mean difference, the ends of its
        interval, and its uncorrected p-value.
    """
    metric = f"N@{max(cutoffs)}"
    if len(rows) < 2:
        return {"names": [row.name for row in rows], "metric": metric, "versus": []}
    values = np.stack([row.compute_per_user([max(cutoffs)])[metric] for row in rows], axis=1)
    resampled = bootstrap_means(values, settings.n_resamples, settings.bootstrap_seed)
    versus = []
    for i in range(len(rows)):
        line = []
        for j in range(i + 1, len(rows)):
            difference = values[:, i] - values[:, j]
            resampled_difference = resampled[:, i] - resampled[:, j]
            low, high = compute_interval(resampled_difference, settings.confidence_level)
            line.append(
                {
                    "wins": int((difference > 0).sum()),
                    "ties": int((difference == 0).sum()),
                    "losses": int((difference < 0).sum()),
                    "mean": float(difference.mean()),
                    "low": float(low),
                    "high": float(high),
                    "p": compute_p_value(float(difference.mean()), resampled_difference),
                }
            )
        versus.append(line)
    return {"names": [row.name for row in rows], "metric": metric, "versus": versus}
