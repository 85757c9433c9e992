"""What trackers get of a search: a run for each trial, in the group of the search, and the best trial marked.

The process of the search logs a trial as soon as it has ended, from its last report; trials in Ray's workers know no
tracker. The folder of the search remembers which trials are logged, so that a resumed search logs each of them once.

Ray's own callbacks (`ray.air.integrations`) are not used. They log a point as Ray sees it, which is the index of each
value in its list. They mark no best trial. A resumed search starts a new run for each trial. And an error of a server
ends the search.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hellm_recbole.errors import HellmError
from hellm_recbole.experiments.logger_check import choose_loggers
from hellm_recbole.experiments.run_tracking import make_tags
from hellm_recbole.experiments.search_task import SearchTask
from hellm_recbole.experiments.sweeps import SearchResult, Trial
from hellm_recbole.system import runtime
from hellm_recbole.system.files import ensure_folder, write_text
from hellm_recbole.training.trackers.base import Outcome, TrackedRun
from hellm_recbole.training.trackers.guard import GuardedTracker, describe_failure, is_failing, report_once

FOLDER = "trackers"  # in the folder of a search
LOGGED_FILE = "logged.json"  # tracker -> numbers of the trials that it has
NOT_GROUPED = "tensorboard"  # it shows trials side by side and has no run for the search itself


@dataclass(frozen=True)
class SearchTracking:
    """The trackers of a search. Ray pickles it with the callback of the search.

    Attributes:
        trackers: names of the trackers.
        name: name of the search, such as `Beauty/SASRec/tune`, which is also the group of its trials.
        settings: settings that are the same in all trials.
        tags: tags of the search and of all trials.
        metric: validation metric that trials are compared by.
    """

    trackers: tuple[str, ...]
    name: str
    settings: Mapping[str, Any]
    tags: Mapping[str, str]
    metric: str

    def log_trial(self, folder: Path, trial: Trial) -> None:
        """Log a trial that has ended, unless it is logged already.

        A tracker that has failed gets it at the end of the search.

        Args:
            folder: folder of the search.
            trial: the trial.
        """
        for tracker in self.trackers:
            if not is_failing(tracker):
                self._log_trial(folder, tracker, trial)

    def finish(self, folder: Path, result: SearchResult) -> None:
        """Log the trials that are not logged yet, mark the best one, and log the search.

        Args:
            folder: folder of the search.
            result: result of the search.
        """
        best = None if result.problem is not None else result.best
        for tracker in self.trackers:
            if not all(self._log_trial(folder, tracker, trial) for trial in result.trials):
                continue  # it does not answer
            if best is not None:
                self._mark_best(folder, tracker, best)
            if tracker != NOT_GROUPED:
                self._log_search(folder, tracker, result)

    def _log_trial(self, folder: Path, tracker: str, trial: Trial) -> bool:
        """Log a trial to one tracker. Return whether the tracker has it."""
        logged = read_logged(folder)
        if trial["number"] in logged.get(tracker, ()):
            return True
        guarded = GuardedTracker(tracker, self._describe_trial(folder, trial["number"], trial["values"]))
        for epoch, value in trial["curve"]:
            guarded.log(int(epoch), {f"valid/{self.metric}": value})
        status = "failed" if trial["status"] == "failed" else "success"
        reason = {} if trial["reason"] is None else {"reason": trial["reason"]}
        summary = {f"best_valid/{name}": value for name, value in trial["valid"].items()}
        numbers = {"best_epoch": trial["best_epoch"], "epochs_run": trial["epochs"], "seconds": trial["seconds"]}
        outcome = Outcome(
            status,  # type: ignore[arg-type]
            {**summary, **numbers},
            {"trial_status": trial["status"], **reason},
            trial["best_epoch"],
        )
        if not guarded.finish(outcome):
            return False
        logged.setdefault(tracker, []).append(trial["number"])
        _write_logged(folder, logged)
        return True

    def _mark_best(self, folder: Path, tracker: str, best: Trial) -> None:
        """Mark the best trial in the way of a tracker: by a tag, and in TensorBoard by a value."""
        guarded = GuardedTracker(tracker, self._describe_trial(folder, best["number"], best["values"]))
        guarded.finish(Outcome("success", {"best_trial": 1.0}, {"best": "true"}, best["best_epoch"]))

    def _log_search(self, folder: Path, tracker: str, result: SearchResult) -> None:
        """Log the search itself: number of trials, best trial, its values and its validation metrics."""
        summary: dict[str, float] = {"trials": len(result.trials), "seconds": result.seconds}
        tags: dict[str, str] = {}
        if result.problem is None:
            summary |= {"best_trial": result.best["number"]}
            summary |= {f"best_valid/{name}": value for name, value in result.best["valid"].items()}
            tags = {f"best/{key}": json.dumps(value) for key, value in result.best["values"].items()}
        status = "success" if result.problem is None else "failed"
        GuardedTracker(tracker, self._describe_search(folder)).finish(
            Outcome(status, summary, tags)  # type: ignore[arg-type]
        )

    def _describe_search(self, folder: Path) -> TrackedRun:
        """Describe the search as a run of a tracker."""
        return TrackedRun(
            self.name, folder / FOLDER / "search", self.settings, self.tags, kind="search", group=self.name
        )

    def _describe_trial(self, folder: Path, number: int, values: Mapping[str, Any]) -> TrackedRun:
        """Describe a trial as a run of a tracker; its values are settings like all others."""
        return TrackedRun(
            name=f"{self.name}/trial-{number:03d}",
            folder=folder / FOLDER / f"trial-{number:03d}",
            settings={**self.settings, **values},
            tags={**self.tags, "trial": str(number)},
            kind="trial",
            group=self.name,
            parent=self._describe_search(folder),
        )


def make_search_tracking(task: SearchTask) -> SearchTracking:
    """Make the trackers of a search, which are those of the run config that is searched.

    Args:
        task: the search.

    Raises:
        MissingDependency: the package of a tracker is not installed.
    """
    request = task.describe_request()
    fields = {**request, **runtime.read_git_state(), "mask_history": "seen", "backbone": task.base.backbone}
    if task.split_kind:
        fields["split_kind"] = task.split_kind
    tags = {"search": f"{task.search}, {task.scheduler}, {task.budget}"}
    return SearchTracking(
        choose_loggers(task.base),
        f"{task.job.dataset}/{task.base.label}/{task.name}",
        request["settings"],
        {**make_tags(task.base.label, fields), **tags},
        task.base.train.valid_metric,
    )


def read_logged(folder: Path) -> dict[str, list[int]]:
    """Read which trials of a search are logged: tracker -> numbers of trials.

    A damaged file is reported once and read as an empty one: trials that are logged again continue their runs.
    """
    path = folder / FOLDER / LOGGED_FILE
    try:
        logged = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not isinstance(logged, dict) or not all(isinstance(numbers, list) for numbers in logged.values()):
            raise ValueError("it is not a list of trials for each tracker")
    except (OSError, ValueError) as error:
        report_once(
            str(path),
            f"{path} cannot be read ({describe_failure(error)}); the search goes on and logs its trials again",
        )
        return {}
    return logged


def _write_logged(folder: Path, logged: Mapping[str, list[int]]) -> None:
    """Write which trials are logged; a failure is reported once and stops nothing."""
    path = folder / FOLDER / LOGGED_FILE
    try:
        write_text(ensure_folder(path.parent) / path.name, json.dumps(logged, sort_keys=True) + "\n")
    except (HellmError, OSError) as error:
        report_once(str(path), f"{path} cannot be written ({describe_failure(error)}); the search continues without it")
