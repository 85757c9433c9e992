"""Progress of a running search: lines and trackers of its trials, and copies of the search state.

This module imports Ray, which takes long. Import it only where a search is run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ray import tune

from hellm_recbole.experiments.search_state import copy_state, list_state_files
from hellm_recbole.experiments.search_task import SearchTask
from hellm_recbole.experiments.search_tracking import SearchTracking, make_search_tracking
from hellm_recbole.experiments.trial import BEST, describe_trial, read_number
from hellm_recbole.system.work_bar import LINE_EVERY_S


class SearchWatcher(tune.Callback):
    """Ray callback that prints the progress of a search, logs its trials to trackers, and copies its state.

    Args:
        task: the search.
    """

    _tracking: SearchTracking | None = None  # a search that an earlier version has started has none
    _rungs: Collection[int] = ()

    def __init__(self, task: SearchTask) -> None:
        self._label, self._metric = task.base.label, task.base.train.valid_metric
        self._space = {key: list(values) for key, values in task.space.items()}
        self._total = f"/{task.budget.trials}" if task.budget.trials is not None and task.search != "grid" else ""
        self._tracking, self._rungs = make_search_tracking(task), task.list_rungs()
        self._last_print_s = time.monotonic()
        self._copied_ns = 0  # time of the newest state file that was copied

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Copy the state if Ray has written a new one in this step.

        Ray calls this function in the thread that writes the state, so the state is complete here.
        """
        if not trials:
            return
        staging = Path(trials[0].local_experiment_path)
        written_ns = max((path.stat().st_mtime_ns for path in list_state_files(staging)), default=0)
        if written_ns > self._copied_ns:
            copy_state(staging, Path(trials[0].remote_experiment_path))
            self._copied_ns = written_ns

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Print a line for a trial that has just reported, unless another line was printed a short time ago."""
        if time.monotonic() - self._last_print_s > LINE_EVERY_S and not result["ended"]:
            self._print_line(trials, trial, f"epoch {result['epoch']}, {self._metric} {result[BEST]:.4f}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print a line for a trial that has ended, was stopped or has failed, and log it."""
        last = trial.last_result or {}
        if last and self._tracking is not None:
            number = read_number(trial.trial_id)
            ended = describe_trial(self._space, self._rungs, number, trial.config, last, None)
            self._tracking.log_trial(Path(trial.remote_experiment_path).parent, ended)
        if last.get("reason"):
            self._print_line(trials, trial, f"failed: {last['reason']}")
        elif last:
            how = "ended" if last["ended"] else "stopped"
            reached = f"{self._metric} {last[BEST]:.4f} @{last['best_epoch']}"
            self._print_line(trials, trial, f"{how} after epoch {last['epoch']}, {reached}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print a line for a trial whose process died. Ray restarts such a trial a few times."""
        self._print_line(trials, trial, "its process died")

    def _print_line(self, trials: list[Any], trial: Any, text: str) -> None:
        self._last_print_s = time.monotonic()
        point = ", ".join(f"{key}={self._space[key][index]}" for key, index in trial.config.items())
        best = max((other.last_result or {}).get(BEST, 0.0) for other in trials)
        line = f"{self._label} trial {read_number(trial.trial_id)}{self._total} ({point}): {text}; best {best:.4f}"
        print(line, file=sys.stderr, flush=True)
