"""Studies: grid searches over one or two settings of a model, which are drawn.

All other settings keep the values of the settings files, and the metrics are those of the validation part. The settings
and values of each study are in `properties/study/<Model>.yaml`. Its search is named `study-<name>`. A study of one
setting is drawn as curves, a study of two settings as heat maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hellm_recbole.config.properties_files import find_file, list_names, locate_file
from hellm_recbole.config.search_space import Point, list_grid
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.report import figures
from hellm_recbole.report.figures import Grid, Panel, Series, spans_decades
from hellm_recbole.report.rendering import render_csv_lines

PREFIX = "study-"
POINTS = "points"  # key of a study with the points outside its grid
_MARK_COLOUR = "#D55E00"
_NO_VALUES: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Study:
    """The points of a study.

    Attributes:
        axes: setting -> values; the grid holds all combinations.
        points: points outside the grid.
    """

    axes: dict[str, list[Any]]
    points: tuple[Point, ...] = ()

    @property
    def n_points(self) -> int:
        """Number of all points."""
        return len(list_grid(self.axes)) + len(self.points)


@dataclass(frozen=True)
class StudyFigure:
    """The figure of a study, with its title and caption."""

    title: str
    caption: str
    figure: Figure


def list_studies(model: str) -> dict[str, Study]:
    """Read the studies of a model.

    Args:
        model: name of the model.

    Returns:
        Name of the study -> its points.

    Raises:
        SettingsError: the model has no studies, a study is not one or two settings with a list of values each, or a
            point outside the grid does not have one value for each of these settings.
    """
    path, file = locate_file("study", model), find_file("study", model)
    if file is None:
        known = ", ".join(list_names("study"))
        raise SettingsError(f"{path} is missing: {model} has no studies. These models have studies: {known}")
    return {name: _read_study(path, name, entry) for name, entry in file.read().items()}


def _read_study(path: Path, name: str, entry: Any) -> Study:
    """Check the entry of a study.

    Args:
        path: file with the studies, for messages.
        name: name of the study.
        entry: content of the file under this name.

    Raises:
        SettingsError: the entry is not understood.
    """
    axes = {key: values for key, values in entry.items() if key != POINTS} if isinstance(entry, Mapping) else {}
    has_lists = all(isinstance(values, list) and len(values) > 1 for values in axes.values())
    if not has_lists or not 1 <= len(axes) <= 2:
        raise SettingsError(
            f"{path}: study {name} must have one or two settings, each with a list of two or more values"
        )
    points = entry.get(POINTS) or []
    grid = list_grid(axes)
    if not isinstance(points, list) or any(
        not isinstance(point, Mapping) or point.keys() != axes.keys() or point in grid for point in points
    ):
        raise SettingsError(
            f"{path}: {POINTS} of study {name} must list points outside the grid, each with one value for "
            f"{' and '.join(axes)}"
        )
    return Study(axes, tuple(map(dict, points)))


def draw_study(
    search: SearchResult,
    *,
    best_in_paper: Mapping[str, Any] = _NO_VALUES,
    labels: Mapping[str, str] = _NO_VALUES,
) -> StudyFigure | None:
    """Draw the figure of a study; return None for other searches, and where no trial has validation metrics.

    Args:
        search: result of the study.
        best_in_paper: setting -> the paper's best value, which is marked; settings without one are left out.
        labels: setting -> its label on an axis; other settings are labelled with their names.
    """
    trials = [trial for trial in search.trials if trial["valid"]]
    if not search.name.startswith(PREFIX) or not trials or len(search.space) > 2:
        return None
    metrics = name_study_metrics(search)
    keys = list(search.space)
    epochs = max(trial["epochs"] for trial in trials)
    caption = (
        "How the result depends on these settings, with all others as they are. Validation part, seed "
        f"{search.seed}, at most {epochs} epochs; {len(trials)} trials."
    )
    if len(keys) == 1:
        panels = [_build_panel(search, keys[0], metric, labels) for metric in metrics]
        figure = figures.draw_lines(panels, points=True)
        if all(isinstance(value, int | float) for value in search.space[keys[0]]):
            figures.set_exact_ticks(figure, [float(value) for value in search.space[keys[0]]])
        if keys[0] in best_in_paper:
            _mark_value(figure, best_in_paper[keys[0]])
        return StudyFigure(f"{search.row}: {keys[0]}", caption, figure)
    grids = [_build_grid(search, keys, metric, labels) for metric in metrics]
    figure = figures.draw_heat_maps(grids)
    if {*keys} <= best_in_paper.keys():
        _mark_field(figure, grids, best_in_paper[keys[1]], best_in_paper[keys[0]])
    return StudyFigure(f"{search.row}: {keys[0]} and {keys[1]}", caption, figure)


def name_study_metrics(search: SearchResult) -> tuple[str, str]:
    """Name the two metrics that a study shows: Recall and NDCG at the K of its validation metric."""
    k = search.valid_metric.partition("@")[2]
    return f"R@{k}", f"N@{k}"


def render_study_csv(search: SearchResult, best_in_paper: Mapping[str, Any] = _NO_VALUES) -> str:
    """Render the trials of a study as CSV, in the order of the study; an empty field is a missing value.

    Args:
        search: result of the study.
        best_in_paper: setting -> the paper's best value, in a column of its own.
    """
    metrics, keys = name_study_metrics(search), list(search.space)
    trials = sorted(search.trials, key=lambda trial: [search.space[key].index(trial["values"][key]) for key in keys])
    lines = [
        {
            **{key: trial["values"][key] for key in keys},
            **{f"{metric}_valid": trial["valid"].get(metric) for metric in metrics},
            "best_epoch": trial["best_epoch"],
            "epochs": trial["epochs"],
            "status": trial["status"],
            "reason": trial["reason"],
            **{f"{key}_best_in_paper": best_in_paper.get(key) for key in keys},
        }
        for trial in trials
    ]
    return render_csv_lines(lines, list(lines[0]) if lines else keys)


def _build_panel(search: SearchResult, key: str, metric: str, labels: Mapping[str, str]) -> Panel:
    """Build the curve of a metric over the values of one setting, the best validation value of each trial."""
    metric_of_value = {trial["values"][key]: trial["valid"][metric] for trial in search.trials if trial["valid"]}
    values = sorted(metric_of_value)
    series = Series("", 0, values, [metric_of_value[value] for value in values])
    title, label = f"{search.row} on {search.dataset}", labels.get(key, key)
    return Panel(title, label, f"{metric}, validation", [series], log_x=spans_decades(values) or _is_geometric(values))


def _is_geometric(values: Sequence[float]) -> bool:
    """Return whether sorted values grow by the same factor, so that a logarithmic axis shows them at equal distances.

    >>> _is_geometric([16, 32, 64]), _is_geometric([1, 5, 10]), _is_geometric([1, 2]), _is_geometric([0, 1, 2])
    (True, False, False, False)
    """
    if len(values) < 3 or values[0] <= 0:
        return False
    return bool(np.allclose(np.diff(np.log(values)), np.log(values[1] / values[0])))


def _build_grid(search: SearchResult, keys: Sequence[str], metric: str, labels: Mapping[str, str]) -> Grid:
    """Build the heat map of a metric over two settings: the second one on the x axis, the first one on the y axis."""
    x_values, y_values = (sorted(search.space[key]) for key in reversed(keys))
    values = np.full((len(y_values), len(x_values)), np.nan)
    for trial in search.trials:
        if trial["valid"]:
            values[y_values.index(trial["values"][keys[0]]), x_values.index(trial["values"][keys[1]])] = trial["valid"][
                metric
            ]
    y_label, x_label = (labels.get(key, key) for key in keys)
    return Grid(f"{search.dataset}, {metric}, validation", x_label, y_label, x_values, y_values, values)


def _mark_value(figure: Figure, value: float) -> None:
    """Mark a value on the x axis of all curves by a vertical line, and name it below the figure."""
    for ax in figure.axes:
        line = ax.axvline(value, color=_MARK_COLOUR, linestyle="--", linewidth=1.0, zorder=1)
    _add_note(figure, line, f"best value in the paper: {value:g}")


def _mark_field(figure: Figure, grids: Sequence[Grid], x: float, y: float) -> None:
    """Mark a field of all heat maps by a frame, and name its values below the figure; skip values outside the grid."""
    grid = grids[0]
    if x not in grid.x or y not in grid.y:
        return
    for ax in figure.axes[: len(grids)]:
        corner = (list(grid.x).index(x) - 0.5, list(grid.y).index(y) - 0.5)
        frame = ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=_MARK_COLOUR, linewidth=2.0, zorder=3))
    _add_note(figure, frame, f"best values in the paper: {grid.x_label} {x:g}, {grid.y_label} {y:g}")


def _add_note(figure: Figure, mark: Any, text: str) -> None:
    """Explain a mark below the figure."""
    figure.legend([mark], [text], loc="outside lower center", frameon=False, fontsize=7)
