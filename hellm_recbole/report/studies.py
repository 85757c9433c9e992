"""Hyperparameter studies: one or two settings over their values, all else as in the files, judged on validation.

A study is a search over the whole grid of its settings, named `study-<name>`, whose values stand in
`properties/study/<Model>.yaml`. Its figure has one setting as curves, or two as a heat map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hellm_recbole.config.layers import find_properties, load_yaml
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.report import figures
from hellm_recbole.report.figures import Grid, Panel, Series, spans_decades

PREFIX = "study-"


@dataclass(frozen=True)
class StudyFigure:
    """A figure with its words."""

    title: str
    caption: str
    figure: Figure


def list_studies(model: str) -> dict[str, dict[str, list[Any]]]:
    """Name of each study of a model -> setting -> values.

    Raises:
        SettingsError: the model has no studies, or one of them is not of one or two settings with lists of values.
    """
    path = find_properties() / "study" / f"{model}.yaml"
    if not path.exists():
        known = sorted(other.stem for other in path.parent.glob("*.yaml"))
        raise SettingsError(f"{model} has no studies; those that have: {', '.join(known)}")
    found = load_yaml(path)
    for name, axes in found.items():
        listed = isinstance(axes, Mapping) and all(
            isinstance(values, list) and len(values) > 1 for values in axes.values()
        )
        if not listed or not 1 <= len(axes) <= 2:
            raise SettingsError(f"{path}: study {name} must have one or two settings with a list of values each")
    return found


def draw_study(sweep: SearchResult) -> StudyFigure | None:
    """The figure of a study; None for other searches and where no trial has reported."""
    trials = [trial for trial in sweep.trials if trial["valid"]]
    if not sweep.name.startswith(PREFIX) or not trials or len(sweep.space) > 2:
        return None
    k = sweep.valid_metric.partition("@")[2]
    metrics = (f"R@{k}", f"N@{k}")
    keys = list(sweep.space)
    epochs = max(trial["epochs"] for trial in trials)
    caption = f"Validation part, seed {sweep.seed}, at most {epochs} epochs; {len(trials)} trials."
    if len(keys) == 1:
        panels = [_curve(sweep, keys[0], metric) for metric in metrics]
        figure = figures.draw_lines(panels, points=True)
        if all(isinstance(value, int | float) for value in sweep.space[keys[0]]):
            figures.set_exact_ticks(figure, [float(value) for value in sweep.space[keys[0]]])
        return StudyFigure(f"{sweep.row}: {keys[0]}", caption, figure)
    grids = [_grid(sweep, keys, metric) for metric in metrics]
    return StudyFigure(f"{sweep.row}: {keys[0]} and {keys[1]}", caption, figures.draw_heat_maps(grids))


def _curve(sweep: SearchResult, key: str, metric: str) -> Panel:
    reached = {trial["values"][key]: trial["valid"][metric] for trial in sweep.trials if trial["valid"]}
    values = sorted(reached)
    series = Series(sweep.row, 0, values, [reached[value] for value in values])
    return Panel(metric, key, f"{metric}, validation", [series], log_x=spans_decades(values))


def _grid(sweep: SearchResult, keys: list[str], metric: str) -> Grid:
    across, up = (sorted(sweep.space[key]) for key in reversed(keys))
    values = np.full((len(up), len(across)), np.nan)
    for trial in sweep.trials:
        if trial["valid"]:
            values[up.index(trial["values"][keys[0]]), across.index(trial["values"][keys[1]])] = trial["valid"][metric]
    return Grid(f"{metric}, validation", keys[1], keys[0], across, up, values)
