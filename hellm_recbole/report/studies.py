"""Studies: grid searches over one or two settings of a model, which are drawn.

All other settings keep the values of the settings files, and the metrics are those of the validation part. The settings
and values of each study are in `properties/study/<Model>.yaml`. Its search is named `study-<name>`. A study of one
setting is drawn as curves, a study of two settings as heat maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.report import figures
from hellm_recbole.report.figures import Grid, Panel, Series, spans_decades

PREFIX = "study-"


@dataclass(frozen=True)
class StudyFigure:
    """The figure of a study, with its title and caption."""

    title: str
    caption: str
    figure: Figure


def list_studies(model: str) -> dict[str, dict[str, list[Any]]]:
    """Read the studies of a model.

    Args:
        model: name of the model.

    Returns:
        Name of the study -> setting -> values to try.

    Raises:
        SettingsError: the model has no studies, or a study is not one or two settings with a list of values each.
    """
    path = find_properties() / "study" / f"{model}.yaml"
    if not path.exists():
        known = sorted(other.stem for other in path.parent.glob("*.yaml"))
        raise SettingsError(f"{path} is missing: {model} has no studies. These models have studies: {', '.join(known)}")
    found = load_yaml(path)
    for name, axes in found.items():
        has_lists = isinstance(axes, Mapping) and all(
            isinstance(values, list) and len(values) > 1 for values in axes.values()
        )
        if not has_lists or not 1 <= len(axes) <= 2:
            raise SettingsError(
                f"{path}: study {name} must have one or two settings, each with a list of two or more values"
            )
    return found


def draw_study(search: SearchResult) -> StudyFigure | None:
    """Draw the figure of a study; return None for other searches, and where no trial has validation metrics."""
    trials = [trial for trial in search.trials if trial["valid"]]
    if not search.name.startswith(PREFIX) or not trials or len(search.space) > 2:
        return None
    k = search.valid_metric.partition("@")[2]
    metrics = (f"R@{k}", f"N@{k}")
    keys = list(search.space)
    epochs = max(trial["epochs"] for trial in trials)
    caption = f"Validation part, seed {search.seed}, at most {epochs} epochs; {len(trials)} trials."
    if len(keys) == 1:
        panels = [_build_panel(search, keys[0], metric) for metric in metrics]
        figure = figures.draw_lines(panels, points=True)
        if all(isinstance(value, int | float) for value in search.space[keys[0]]):
            figures.set_exact_ticks(figure, [float(value) for value in search.space[keys[0]]])
        return StudyFigure(f"{search.row}: {keys[0]}", caption, figure)
    grids = [_build_grid(search, keys, metric) for metric in metrics]
    return StudyFigure(f"{search.row}: {keys[0]} and {keys[1]}", caption, figures.draw_heat_maps(grids))


def _build_panel(search: SearchResult, key: str, metric: str) -> Panel:
    """Build the curve of a metric over the values of one setting, the best validation value of each trial."""
    metric_of_value = {trial["values"][key]: trial["valid"][metric] for trial in search.trials if trial["valid"]}
    values = sorted(metric_of_value)
    series = Series(search.row, 0, values, [metric_of_value[value] for value in values])
    return Panel(metric, key, f"{metric}, validation", [series], log_x=spans_decades(values))


def _build_grid(search: SearchResult, keys: list[str], metric: str) -> Grid:
    """Build the heat map of a metric over two settings: the second one on the x axis, the first one on the y axis."""
    x_values, y_values = (sorted(search.space[key]) for key in reversed(keys))
    values = np.full((len(y_values), len(x_values)), np.nan)
    for trial in search.trials:
        if trial["valid"]:
            values[y_values.index(trial["values"][keys[0]]), x_values.index(trial["values"][keys[1]])] = trial["valid"][
                metric
            ]
    return Grid(f"{metric}, validation", keys[1], keys[0], x_values, y_values, values)
