"""Hyper-parameter searches with Ray Tune, on the validation part only.

A trial gets the training part and the validation targets (`types.SelectionData`). It never sees the test part, so it
cannot report a test metric. A trial trains with the training loop of this project (`trial.py`). `tuner.py` chooses the
points and stops poor trials early. `search_state.py` keeps what a killed search is resumed from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hellm_recbole import __version__
from hellm_recbole.config.request import SearchRequest
from hellm_recbole.errors import take_last_line
from hellm_recbole.experiments.earlier_search import (
    describe_finished_search,
    find_finished_search,
    is_started,
    write_request,
)
from hellm_recbole.experiments.jobs import announce_removals
from hellm_recbole.experiments.logger_check import describe_missing_loggers
from hellm_recbole.experiments.ray_cluster import connect_cluster
from hellm_recbole.experiments.search_state import RAY_FOLDER, STATE_FOLDER, needs_lock, remove_state, restore_state
from hellm_recbole.experiments.search_task import SearchTask
from hellm_recbole.experiments.search_tracking import make_search_tracking
from hellm_recbole.experiments.sweeps import SCHEMA, SearchResult, Trial, write_search
from hellm_recbole.experiments.trial import BEST, describe_trial, read_number
from hellm_recbole.system import runtime
from hellm_recbole.system.files import ensure_folder, remove_folder, remove_leftovers
from hellm_recbole.system.locks import FolderLock

if TYPE_CHECKING:
    from ray import tune


def run_searches(tasks: Sequence[SearchTask], request: SearchRequest) -> Iterator[SearchResult]:
    """Run searches one after the other on one Ray cluster, and yield each result as soon as its search has finished.

    Raises:
        HellmError: there is no cluster at the address, a search cannot be run or resumed, or a tracker that somebody
            asked for is not installed.
    """
    folders = [task.locate(request.output) for task in tasks]
    if (untracked := describe_missing_loggers(task.base for task in tasks)) is not None:
        print(untracked)
    with ExitStack() as stack:
        for task, folder in zip(tasks, folders, strict=True):
            if request.fresh or needs_lock(folder):
                stack.enter_context(
                    FolderLock(folder, f"search {task.name} of {task.base.label} on {task.job.dataset}")
                )
        if request.fresh:
            announce_removals(folders, request.output)
        stack.enter_context(connect_cluster(request.address, request.threads))
        for task in tasks:
            yield run_search(task, request.output, fresh=request.fresh)


def run_search(task: SearchTask, output: Path, *, fresh: bool) -> SearchResult:
    """Run a search to its end and write `sweep.json`. A finished search is only read, a stopped one is resumed.

    The process must be connected to a Ray cluster.

    Args:
        task: search to run.
        output: folder of all results.
        fresh: whether to delete an earlier search and start from scratch.

    Raises:
        ResultError: the folder holds another search.
        SettingsError: the grid has more points than the budget allows.
        MissingDependency: Optuna is not installed.
    """
    request, folder = task.describe_request(), task.locate(output)
    if fresh:
        remove_folder(folder, output)
    search_result = find_finished_search(folder, request)
    if search_result is not None:
        description = describe_finished_search(search_result)
        print(f"{task.base.label} on {task.job.dataset}, search {task.name}: {description}")
    else:
        remove_leftovers(ensure_folder(folder))
        trials = collect_trials(task, _open_tuner(task, folder, request, output).fit())
        search_result = SearchResult(
            schema=SCHEMA,
            **request,
            versions={**runtime.list_versions(), "hellm_recbole": __version__},  # type: ignore[typeddict-item]
            **runtime.read_git_state(),
            seconds=sum(trial["seconds"] for trial in trials),
            trials=tuple(trials),
        )
        write_search(folder, search_result)
        make_search_tracking(task).finish(folder, search_result)
    remove_state(folder, output)
    return search_result


def _open_tuner(task: SearchTask, folder: Path, request: Mapping[str, Any], output: Path) -> tune.Tuner:
    """Load the tuner of a search that was stopped, or set up the tuner of a new one and write its request.

    Args:
        task: search to run.
        folder: folder of the search.
        request: what determines the search.
        output: folder of all results.

    Raises:
        ResultError: the state of the stopped search is damaged, or another version wrote it.
        SettingsError: the grid has more points than the budget allows, or no node has enough CPUs.
        MissingDependency: Optuna is not installed.
    """
    from hellm_recbole.experiments import tuner  # here, because it imports Ray

    storage = (folder / RAY_FOLDER).resolve()
    trainable = tuner.make_trainable(task)
    if is_started(folder) and restore_state(folder / STATE_FOLDER, storage):
        return tuner.restore_tuner(storage, trainable)
    remove_state(folder, output)
    made = tuner.make_tuner(task, trainable, storage)
    write_request(folder, request)
    return made


def collect_trials(task: SearchTask, results: tune.ResultGrid) -> list[Trial]:
    """Collect the trials that were started, in the order of their numbers.

    Args:
        task: the search.
        results: last report and error of each trial. A trial has neither if the budget was used up before it started.
    """
    rungs = task.list_rungs()
    ended = [results[index] for index in range(len(results))]
    started = [result for result in ended if BEST in (result.metrics or {}) or result.error is not None]
    trials = [
        describe_trial(
            task.space,
            rungs,
            read_number(Path(result.path).name),
            result.config or {},
            result.metrics or {},
            None if result.error is None else take_last_line(result.error),
        )
        for result in started
    ]
    return sorted(trials, key=lambda trial: trial["number"])
