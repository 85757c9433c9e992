"""Figures of the page: of the rows of the table, of the ablation, and of hyper-parameter searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hellm_recbole.experiments.results import RunResult, label_run
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.report import figures
from hellm_recbole.report.ablation import Ablation, AblationRow
from hellm_recbole.report.audit import Audit
from hellm_recbole.report.figures import Chart, Panel, Series
from hellm_recbole.report.finished_rows import FinishedRow
from hellm_recbole.report.frame import ReportFrame, name_metrics
from hellm_recbole.report.named_figure import NamedFigure
from hellm_recbole.report.settings import ReportSettings
from hellm_recbole.report.slices import average_slice, slice_by_history, slice_by_popularity
from hellm_recbole.report.studies import draw_study

FIGURES = "figures"  # name of the folder of the figures
LARGEST_K = 50  # the curves over K end here, or at the largest requested cut-off if that is larger


def draw_page_figures(
    frame: ReportFrame,
    rows: Sequence[FinishedRow],
    ablation: Ablation | None,
    searches: Sequence[SearchResult],
    cutoffs: Sequence[int],
    settings: ReportSettings,
    audit: Audit | None = None,
) -> list[NamedFigure]:
    """Draw all figures of a page, in its order.

    Args:
        frame: runs of the table.
        rows: finished rows of the table.
        ablation: ablation table; None if there is none.
        searches: hyper-parameter searches.
        cutoffs: cut-offs K.
        settings: quantiles of the slices, and levels of the ablation.
        audit: rows with changed features; None if there are none.
    """
    return [
        *(_draw_run_figures(frame, rows, max(cutoffs), settings) if rows else []),
        *([] if ablation is None else _draw_ablation_figures(ablation, settings)),
        *([] if audit is None else _draw_audit_figures(audit, settings)),
        *(figure for search in searches for figure in _draw_search(search)),
    ]


def _draw_run_figures(
    frame: ReportFrame, rows: Sequence[FinishedRow], k: int, settings: ReportSettings
) -> list[NamedFigure]:
    """Draw the figures of the finished rows: metrics over K, learning curves, accuracy against cost, and slices.

    Args:
        frame: runs of the table.
        rows: finished rows, at least one.
        k: cut-off K of the costs and slices.
        settings: quantiles of the slices.
    """
    every_k = range(1, max(LARGEST_K, k) + 1)
    names = name_metrics(every_k)
    over_k = [
        {name: float(values.mean()) for name, values in zip(names, frame.average_seeds(row.runs, names).T, strict=True)}
        for row in rows
    ]
    accuracies = [(row, means[f"N@{k}"]) for row, means in zip(rows, over_k, strict=True)]
    return [
        _draw_over_k(rows, over_k, every_k),
        *_draw_learning_curves(rows),
        *_draw_costs(accuracies, k),
        _draw_slices(frame, rows, k, settings),
    ]


def _build_series(row: FinishedRow, x: Sequence[float], y: Sequence[float]) -> Series:
    """Build the series of a row."""
    return Series(row.name, row.index, x, y, row.family, row.shade)


def _draw_over_k(
    rows: Sequence[FinishedRow], over_k: Sequence[Mapping[str, float]], every_k: Sequence[int]
) -> NamedFigure:
    """Draw Recall and NDCG over K.

    Args:
        rows: finished rows.
        over_k: metric -> mean, for each row.
        every_k: values of K.
    """
    panels = []
    for kind, title in (("R", "Recall"), ("N", "NDCG")):
        series = [
            _build_series(row, list(every_k), [means[f"{kind}@{n}"] for n in every_k])
            for row, means in zip(rows, over_k, strict=True)
        ]
        panels.append(Panel(title, "K", f"{title}@K", series))
    caption = (
        "How the metrics grow with K, the number of recommended items that count; higher is better. Test part, from "
        "the saved ranks."
    )
    return NamedFigure("over-k", "Recall and NDCG over K", caption, Chart(panels))


def _draw_learning_curves(rows: Sequence[FinishedRow]) -> list[NamedFigure]:
    """Draw the validation metric over epochs and over time, for the first seed of each row."""
    by_epoch, by_time, metrics_used = [], [], set()
    for row in rows:
        record = row.runs[0]
        if record.external is not None:
            continue  # nobody knows how it was trained
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
            by_epoch.append(_build_series(row, epochs, values))
            by_time.append(_build_series(row, minutes, values))
    if not by_epoch:
        return []
    label = f"{' or '.join(sorted(metrics_used))}, validation"
    panels = [
        Panel("by epoch", "epoch", label, by_epoch, log_x=_bends_early(by_epoch)),
        Panel("by time", "training time (min)", label, by_time, log_x=_bends_early(by_time)),
    ]
    caption = (
        "How each model improved during training, measured on the validation part; a curve that is still rising may "
        "need more epochs. The first seed of each row; rows of a single epoch are left out."
    )
    return [NamedFigure("learning", "Learning curves", caption, Chart(panels))]


def _bends_early(curves: Sequence[Series]) -> bool:
    """Return whether curves of training need a logarithmic axis, because most happens within few epochs."""
    return figures.spans_decades([value for curve in curves for value in curve.x], figures.CURVE_LOG_FROM)


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
            costs = [cost for cost in map(measure, row.runs) if cost is not None]
            if len(costs) == len(row.runs):
                series.append(_build_series(row, [float(np.mean(costs))], [value]))
        if series:
            log_x = figures.spans_decades([points.x[0] for points in series])
            panels.append(Panel(f"against {title}", label, f"N@{k}, test", series, log_x=log_x))
    if not panels:
        return []
    caption = (
        "What accuracy costs: up and left is better, and the grey line joins the rows that no other row beats in "
        "both. Memory is that of the device if one was used, otherwise of the process."
    )
    return [NamedFigure("cost", "Accuracy against cost", caption, Chart(panels, "scatter"))]


def _measure_memory_gib(record: RunResult) -> float | None:
    """Return the peak memory of a run in GiB: of the device if one was used, otherwise of the process."""
    used = record.peak_memory_bytes["device"] or record.peak_memory_bytes["host"]
    return None if used is None else used / 2**30


def _draw_slices(frame: ReportFrame, rows: Sequence[FinishedRow], k: int, settings: ReportSettings) -> NamedFigure:
    """Draw Recall@k by history length of the user and by popularity of the target."""
    test = frame.get_targets(rows[0].runs[0])
    by_history = slice_by_history(test["history_length"].to_numpy(), settings.history_quantiles)
    by_popularity = slice_by_popularity(test["item_count"].to_numpy(), settings.popularity_quantiles)
    panels = []
    for title, unit, groups in (
        ("by history length", "interactions before", by_history),
        ("by the target's popularity", "items, by training interactions", by_popularity),
    ):
        series = []
        for row in rows:
            values = [average_slice(frame, row.runs, mask, [k])[f"R@{k}"] for mask in groups.values()]
            series.append(_build_series(row, list(range(len(groups))), values))
        names = [name.removeprefix("history ").replace(" items", "") for name in groups]
        panels.append(Panel(title, unit, f"R@{k}, test", series, ticks=names))
    caption = (
        f"For which users and items the models are good: R@{k} of users with short and long histories, and of held-out "
        "items that are rare or frequent in training (cold: never there)."
    )
    return NamedFigure("slices", "Slices", caption, Chart(panels, "marked lines"))


def _draw_ablation_figures(ablation: Ablation, settings: ReportSettings) -> list[NamedFigure]:
    """Draw one figure of bars for each model with variants; a model without any hit has none."""
    named_figures: list[NamedFigure] = []
    groups: list[tuple[AblationRow, list[AblationRow]]] = []
    for row in ablation.rows:
        if row.change is None:
            groups.append((row, []))
        else:
            groups[-1][1].append(row)
    for whole, rows in groups:
        base = whole.means[ablation.metric]
        if rows and base:
            figure = figures.draw_bars(
                f"{whole.model} = {base:.4f}",
                f"change of {ablation.metric}, test (%), with {settings.confidence_level:.0%} interval",
                [f"{row.model.partition('@')[0]}{'*' if row.starred else ''}" for row in rows],
                [100 * (row.change or 0.0) for row in rows],
                [(100 * (row.low or 0.0), 100 * (row.high or 0.0)) for row in rows],
            )
            caption = (
                f"What changes if one part of {whole.model} is left out or replaced: a bar to the left means that the "
                f"part helps. * differs from the whole model at p < {settings.significance_level:g}, Holm-corrected."
            )
            name, title = f"ablation-{_to_file_name(whole.model)}", f"What the parts of {whole.model} are worth"
            named_figures.append(NamedFigure(name, title, caption, figure))
    return named_figures


def _draw_audit_figures(audit: Audit, settings: ReportSettings) -> list[NamedFigure]:
    """Draw one figure of bars for each model with changed features; its caption says which changes cost nothing."""
    metric = audit.metrics[-1]
    compared = [(row, row.change, found) for row in audit.rows if (found := row.changes.get(metric)) is not None]
    named: list[NamedFigure] = []
    for whole in (row for row in audit.rows if row.change is None):
        backbone, setup = whole.model.partition("@")[2] or None, whole.preset
        own = [
            (row, change, found)
            for row, change, found in compared
            if change is not None and (label_run(change.row, backbone), row.preset) == (whole.model, setup)
        ]
        if own and whole.means[metric]:
            figure = figures.draw_bars(
                f"{whole.model} = {whole.means[metric]:.4f}",
                f"change of {metric}, test (%), with {settings.confidence_level:.0%} interval",
                [f"{change.what}{'*' if found.p < audit.level else ''}" for _, change, found in own],
                [100 * (found.change or 0.0) for *_, found in own],
                [(100 * (found.low or 0.0), 100 * (found.high or 0.0)) for *_, found in own],
            )
            caption = " ".join(sentence for sentence in audit.findings if sentence.startswith(f"{whole.model}: "))
            title = f"What the modalities of {whole.model} bring"
            named.append(NamedFigure(f"audit-{_to_file_name(whole.model)}", title, caption, figure))
    return named


def _draw_search(result: SearchResult) -> list[NamedFigure]:
    """Draw the figure of a study, or the trials of another search; a search without any metric has no figure."""
    name = name_figure(result)
    if (study := draw_study(result)) is not None:
        return [NamedFigure(name, study.title, study.caption, study.figure)]
    reported = [trial for trial in result.trials if trial["curve"]]
    if not reported:
        return []
    best = result.best
    series = [
        Series(
            f"trial {trial['number']}" if trial is best else trial["status"],
            0 if trial is best else 4 if trial["status"] == "ended" else 1,
            [point[0] for point in trial["curve"]],
            [point[1] for point in trial["curve"]],
        )
        for trial in sorted(reported, key=lambda trial: trial is best)
    ]
    panel = Panel(result.row, "epoch", f"{result.valid_metric}, validation", series, log_x=_bends_early(series))
    caption = (
        "Each line is a trial, a training run with its own values; the best trial is named. "
        f"{len(result.trials)} trials, {result.budget}, scheduler {result.scheduler}, search {result.search}."
    )
    return [NamedFigure(name, f"Search of {result.row}", caption, Chart([panel]))]


def name_figure(result: SearchResult) -> str:
    """Return the file name of a search's figure, without ending."""
    return f"{_to_file_name(result.row)}-{_to_file_name(result.name)}"


def _to_file_name(name: str) -> str:
    """Turn a name into a file name of letters, digits, dots and dashes.

    >>> _to_file_name("HeLLM@a/b")
    'HeLLM-a-b'
    """
    return "".join(char if char.isalnum() or char in ".-" else "-" for char in name)
