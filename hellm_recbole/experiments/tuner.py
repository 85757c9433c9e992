"""Ray's tuner of a search: which points are tried, in which order, and which trials are stopped early.

This module imports Ray, which takes long. Import it only where a search is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Searcher

from hellm_recbole.config.search_space import Point, Space, count_points, draw_points, list_grid
from hellm_recbole.errors import MissingDependency, ResultError, SettingsError, take_last_line
from hellm_recbole.experiments.ray_cluster import request_resources
from hellm_recbole.experiments.search_progress import SearchWatcher
from hellm_recbole.experiments.search_task import SearchTask, read_tune_settings
from hellm_recbole.experiments.trial import BEST, train_trial

MOST_POINTS = 10_000  # number of random points if the budget of the search is a time


def make_trainable(task: SearchTask) -> Any:
    """Return the function that trains a trial, with its input and the resources that it requests.

    Raises:
        SettingsError: no node of the cluster has so many CPUs.
    """
    resources = task.base.resources
    requested = request_resources(resources.ray_cpus, resources.ray_gpus)
    return tune.with_resources(tune.with_parameters(train_trial, job=task.job), requested)


def make_tuner(task: SearchTask, trainable: Any, storage: Path) -> tune.Tuner:
    """Set up Ray's tuner for a new search.

    Args:
        task: search to run.
        trainable: function that trains a trial, from `make_trainable`.
        storage: Ray's folder of the search.

    Raises:
        SettingsError: the grid has more points than the budget allows.
        MissingDependency: Optuna is not installed.
    """
    searcher: Any
    points = [_find_indices(task.space, point) for point in choose_points(task)]
    if task.search == "optuna":
        searcher, n_samples = _make_optuna_searcher(task, points), task.budget.trials or -1
    else:
        searcher, n_samples = BasicVariantGenerator(points_to_evaluate=points), len(points)
    return tune.Tuner(
        trainable,
        param_space={key: tune.choice(range(len(values))) for key, values in task.space.items()},
        tune_config=tune.TuneConfig(
            metric=BEST,
            mode="max",
            search_alg=searcher,
            scheduler=_make_scheduler(task),
            num_samples=n_samples,
            time_budget_s=None if task.budget.minutes is None else 60 * task.budget.minutes,
        ),
        run_config=tune.RunConfig(
            name=storage.name,
            storage_path=str(storage.parent),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=read_tune_settings().max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            callbacks=[SearchWatcher(task)],
        ),
    )


def restore_tuner(storage: Path, trainable: Any) -> tune.Tuner:
    """Load a stopped search from Ray's folder.

    Args:
        storage: Ray's folder of the search.
        trainable: function that trains a trial, from `make_trainable`.

    Raises:
        ResultError: another version wrote the state, or the state is damaged.
    """
    try:
        return tune.Tuner.restore(str(storage), trainable, resume_unfinished=True, resume_errored=True)
    except Exception as error:  # Ray's files are pickles: a class that has changed since can raise anything
        raise ResultError(
            f"{storage} cannot be resumed ({take_last_line(error)}): another version wrote it, or it is damaged; start "
            "the search from scratch with --fresh"
        ) from error


def choose_points(task: SearchTask) -> list[Point]:
    """Choose the points to try, in order. Optuna gets only its first point here.

    Raises:
        SettingsError: the grid has more points than the budget allows.
    """
    current = task.base.resolved.values
    if task.search == "optuna":
        return draw_points(task.space, current, 1, task.job.seed)
    if task.search == "random":
        return draw_points(task.space, current, task.budget.trials or MOST_POINTS, task.job.seed)
    size = count_points(task.grid) + len(task.points)
    if task.budget.trials is not None and size > task.budget.trials:
        raise SettingsError(
            f"the grid of {task.base.label} has {size} points and the budget is {task.budget}; raise the budget, make "
            "the grid smaller with --space, or use --search random"
        )
    return [*list_grid(task.grid), *task.points]


def _find_indices(space: Space, point: Point) -> dict[str, int]:
    """Return a point as indices into the lists of values. A searcher can handle indices for values of any type."""
    return {key: list(space[key]).index(value) for key, value in point.items()}


def _make_optuna_searcher(task: SearchTask, points: Sequence[Mapping[str, int]]) -> Searcher:
    """Set up Optuna's searcher.

    Args:
        task: search to run.
        points: first points, as indices.

    Raises:
        MissingDependency: Optuna is not installed.
    """
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError as error:
        raise MissingDependency(
            "--search optuna needs the package optuna; pip install 'hellm-recbole[optuna]', or use --search random"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(points_to_evaluate=[dict(point) for point in points], seed=task.job.seed)


def _make_scheduler(task: SearchTask) -> TrialScheduler | None:
    """Set up ASHA. Return None if the search does not stop trials early."""
    if task.scheduler == "none":
        return None
    settings = read_tune_settings()
    return ResumableASHA(
        time_attr="reports",
        max_t=task.max_reports,
        grace_period=min(settings.grace_reports, task.max_reports),
        reduction_factor=settings.reduction_factor,
    )


class ResumableASHA(ASHAScheduler):
    """ASHA that rebuilds its rungs when a search is resumed, from the reports of the trials. Ray does not save them."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial to its bracket, and its earlier reports to the rungs."""
        super().on_trial_add(tune_controller, trial)
        best = 0.0
        for reports, (_, value) in enumerate((trial.last_result or {}).get("curve", ()), start=1):
            best = max(best, value)
            self._trial_info[trial.trial_id].on_result(trial, reports, best)
