"""Hyper-parameter search with Ray Tune, on the validation part only.

A trial gets the training part and the validation targets (`types.SelectionData`). It never sees the test part, so it
cannot report a test metric. A trial trains with the training loop of this project. After each validation it reports the
metric and its checkpoint to Ray. With these reports ASHA can stop a trial early, a trial whose process died continues
from its last report, and a killed search can be resumed.

Ray overwrites the files of the search state in place. A search that is killed during such a write leaves half-written
files. Therefore this module keeps a complete copy of the state next to Ray's folder.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Searcher

from hellm_recbole import __version__
from hellm_recbole.config.request import Override, SchedulerName, SearchBudget, SearchName
from hellm_recbole.config.search_space import Point, Space, count_points, draw_points, list_grid
from hellm_recbole.config.settings import Settings, load_settings
from hellm_recbole.errors import (
    CheckpointError,
    HellmError,
    MissingDependency,
    ResultError,
    SettingsError,
    take_first_line,
    take_last_line,
)
from hellm_recbole.experiments.ray_cluster import enter_worker, request_resources
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.experiments.sweeps import (
    SCHEMA,
    SEARCH_FILE,
    SearchResult,
    Trial,
    locate_search,
    read_search,
    write_search,
)
from hellm_recbole.identity.code import find_changed_modules
from hellm_recbole.identity.compare import CODE, SETTING, complete_settings, describe_changes, list_names
from hellm_recbole.models.base import ModelSpec
from hellm_recbole.system import runtime
from hellm_recbole.system.files import (
    DIGEST_MISMATCH,
    SUMS,
    check_seal,
    create_scratch_folder,
    ensure_folder,
    find_changed_file,
    remove_folder,
    remove_leftovers,
    replace_folder,
    seal,
    write_sums,
    write_text,
)
from hellm_recbole.system.locks import get_lock_path
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.progress import LINE_EVERY_S
from hellm_recbole.training.trainer import fit
from hellm_recbole.types import SelectionData

BEST = "best"  # key of the reported value that trials are compared by: the best validation metric so far
RAY_FOLDER = "ray"
TUNER_FILE = "tuner.pkl"  # Ray's file with the definition of the search
STATE_FOLDER = "state"  # copy of Ray's state files, all from the same moment
REQUEST_FILE = "request.json"
MOST_POINTS = 10_000  # number of random points if the budget of the search is a time


class TuneSettings(Settings):
    """Settings of the early stopping and restarting of trials, from `properties/tune.yaml`.

    Attributes:
        grace_reports: number of reports before a trial may be stopped.
        reduction_factor: at each rung, one trial in this many continues.
        max_failures: number of times that a trial is restarted after its process died.
    """

    grace_reports: int = Field(ge=1)
    reduction_factor: int = Field(ge=2)
    max_failures: int = Field(ge=0)


def read_tune_settings() -> TuneSettings:
    """Read `properties/tune.yaml`."""
    return load_settings(TuneSettings, "tune.yaml")


@dataclass(frozen=True)
class TrialJob:
    """Input of all trials of a search. Each trial gets its point in addition.

    Attributes:
        model: name of the model.
        dataset: name of the dataset.
        registry: models of this project, by name.
        preset: name of the preset.
        overrides: settings that are the same in all trials.
        space: setting -> values to try; a point holds indices into these values.
        data: training part and validation targets, without the test part.
        seed: random seed of the run, the same for all trials.
        device: device as given on the command line.
        folder: working folder of the command.
        run_parts: name -> value or digest of everything that all trials depend on.
    """

    model: str
    dataset: str
    registry: Mapping[str, ModelSpec]
    preset: str
    overrides: Sequence[Override]
    space: Space
    data: SelectionData
    seed: int
    device: str
    folder: Path
    run_parts: Mapping[str, str]

    def resolve(self, point: Point) -> RunConfig:
        """Resolve the run config of one point."""
        point_overrides = [Override(self.model, key, value, f"{key} of the search") for key, value in point.items()]
        return resolve_run(self.model, self.dataset, self.registry, self.preset, [*self.overrides, *point_overrides])


@dataclass(frozen=True)
class SearchTask:
    """One hyper-parameter search for one run config.

    Attributes:
        job: input of all trials.
        base: run config before the search.
        space: search space, from `search_space`.
        name: name of the search.
        budget: number of trials or minutes.
        scheduler: "asha" stops poor trials early, "none" does not.
        search: method that chooses the points.
        split_hash: SHA-256 of the dataset's split.
        n_candidates: number of ranked items.
    """

    job: TrialJob
    base: RunConfig
    space: Space
    name: str
    budget: SearchBudget
    scheduler: SchedulerName
    search: SearchName
    split_hash: str
    n_candidates: int

    def describe_request(self) -> dict[str, Any]:
        """Return everything that determines the search, in the form of `request.json`."""
        fixed = {key: value for key, value in self.base.reproducibility_settings().items() if key not in self.space}
        request = {
            "dataset": self.job.dataset,
            "split_hash": self.split_hash,
            "n_candidates": self.n_candidates,
            "row": self.base.label,
            "model": self.base.model,
            "name": self.name,
            "preset": self.job.preset,
            "seed": self.job.seed,
            "valid_metric": self.base.train.valid_metric,
            "budget": str(self.budget),
            "scheduler": self.scheduler,
            "search": self.search,
            "space": {key: list(values) for key, values in self.space.items()},
            "settings": fixed,
            "identity": {key: value for key, value in self.job.run_parts.items() if not key.startswith(SETTING)},
        }
        copied: dict[str, Any] = json.loads(json.dumps(request))
        return copied


def locate_search_of(task: SearchTask, output: Path) -> Path:
    """Return the folder of a search inside the folder of all results."""
    return locate_search(output, task.job.dataset, task.base.label, task.name)


def needs_lock(folder: Path) -> bool:
    """Return whether a command will write to the folder of a search.

    This is the case if the search is not finished, or if it was killed before its temporary files were removed.
    """
    temporary_files = (folder / RAY_FOLDER, folder / STATE_FOLDER, get_lock_path(folder))
    return not (folder / SEARCH_FILE).exists() or any(path.exists() for path in temporary_files)


def run_search(task: SearchTask, output: Path, *, resume: bool, fresh: bool) -> SearchResult:
    """Run a search to its end and write `sweep.json`. A finished search is only read.

    The process must be connected to a Ray cluster.

    Args:
        task: search to run.
        output: folder of all results.
        resume: whether to resume a search that was stopped.
        fresh: whether to delete an earlier search and start from scratch.

    Raises:
        ResultError: the folder holds another search, or a stopped one and `resume` is false.
        SettingsError: the grid has more points than the budget allows.
        MissingDependency: Optuna is not installed.
    """
    request, folder = task.describe_request(), locate_search_of(task, output)
    if fresh:
        remove_folder(folder, output)
    earlier = folder / REQUEST_FILE
    if earlier.exists():
        finished = (folder / SEARCH_FILE).exists()
        _refuse_other_request(earlier, request, finished=finished)
        if finished:
            search_result = read_search(folder / SEARCH_FILE)
            _remove_work(folder, output)
            description = describe_finished_search(search_result)
            print(f"{task.base.label} on {task.job.dataset}, search {task.name}: {description}")
            return search_result
        if not resume:
            raise ResultError(
                f"{folder} holds a search that was stopped; resume it with --resume, or start from scratch with --fresh"
            )
    remove_leftovers(ensure_folder(folder))
    storage = (folder / RAY_FOLDER).resolve()
    resources = task.base.resources
    trainable = tune.with_resources(
        tune.with_parameters(_trial, job=task.job), request_resources(resources.ray_cpus, resources.ray_gpus)
    )
    if earlier.exists() and _restore_state(folder / STATE_FOLDER, storage):
        tuner = _restore_tuner(storage, trainable)
    else:
        _remove_work(folder, output)
        tuner = _make_tuner(task, trainable, storage)
        write_text(earlier, json.dumps(seal(request), indent=1))
    trials = _collect_trials(task, tuner.fit())
    search_result = SearchResult(
        schema=SCHEMA,
        **request,
        versions={**runtime.list_versions(), "hellm_recbole": __version__},  # type: ignore[typeddict-item]
        **runtime.read_git_state(),
        seconds=sum(trial["seconds"] for trial in trials),
        trials=tuple(trials),
    )
    write_search(folder, search_result)
    _remove_work(folder, output)
    return search_result


def _remove_work(folder: Path, output: Path) -> None:
    """Remove the search state and the checkpoints of trials. `run.py --tuned` trains the best trial from scratch."""
    for name in (STATE_FOLDER, RAY_FOLDER):
        remove_folder(folder / name, output)


def _copy_state(staging: Path, storage: Path) -> None:
    """Copy the search state into the state folder, complete or not at all.

    Args:
        staging: folder where Ray has just written the state; Ray copies it to `storage` file by file.
        storage: Ray's folder of the search.

    Raises:
        OutputError: the copy cannot be written.
    """
    target = storage.parent / STATE_FOLDER
    with create_scratch_folder(target.parent, target.name) as temporary:
        for path in (*_list_state_files(staging), storage / TUNER_FILE):
            shutil.copyfile(path, temporary / path.name)
        write_sums(temporary)
        replace_folder(temporary, target)


def _restore_state(copy: Path, storage: Path) -> bool:
    """Replace the state files in Ray's folder, which may be half-written, by the complete copy.

    Args:
        copy: folder of the copy.
        storage: Ray's folder of the search.

    Returns:
        True if there is a copy, False if the search was killed before its first trial.

    Raises:
        ResultError: the copy is damaged.
    """
    if not (copy / SUMS).exists():
        return False
    files = [*_list_state_files(copy), copy / TUNER_FILE]
    try:
        if changed := find_changed_file(copy, [path.name for path in files]):
            raise ResultError(f"{changed}: {DIGEST_MISMATCH}; start the search from scratch with --fresh")
        ensure_folder(storage)
        for path in _list_state_files(storage):
            path.unlink()
        for path in files:
            shutil.copyfile(path, storage / path.name)
        for trial in storage.glob("_trial_*"):  # without a checkpoint folder Ray would give up the trial
            newest = max((int(path.name[-6:]) for path in trial.glob("checkpoint_" + 6 * "[0-9]")), default=0)
            for number in range(newest):
                (trial / f"checkpoint_{number:06d}").mkdir(exist_ok=True)
    except OSError as error:
        raise ResultError(
            f"{copy} cannot be read or copied to {storage} ({error}); start the search from scratch with --fresh"
        ) from error
    return True


def _list_state_files(folder: Path) -> list[Path]:
    """List the state files that change while a search runs: trials, points, callbacks."""
    return [path for path in sorted(folder.glob("[!.]*-*.*")) if path.suffix in (".json", ".pkl") and path.is_file()]


def _restore_tuner(storage: Path, trainable: Any) -> tune.Tuner:
    """Load a stopped search from Ray's folder.

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


def describe_finished_search(result: SearchResult) -> str:
    """Describe a finished search that is not run again, and whether its code has changed since."""
    if not result.identity:
        return "finished before, kept; features, code: unknown (recorded by an earlier version)"
    code = {key.removeprefix(CODE): value for key, value in result.identity.items() if key.startswith(CODE)}
    if changed := find_changed_modules(code):
        return f"finished before, kept; its code has changed since ({list_names(changed)}; --fresh runs it again)"
    return "finished before, kept"


def _refuse_other_request(path: Path, request: Mapping[str, Any], *, finished: bool) -> None:
    """Refuse to reuse an earlier search that was requested differently or whose inputs have changed.

    Args:
        path: file with the request of the earlier search.
        request: request of this search.
        finished: whether the earlier search has finished. A finished search is also reused if only its code has
            changed, or if an earlier version of this program wrote it, which did not record the inputs.

    Raises:
        ResultError: the two requests differ; the message names the first difference.
    """
    try:
        earlier = check_seal(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise ResultError(f"{path} cannot be read ({error}); run the search again with --fresh") from error
    if "settings" in earlier and "settings" in request:
        earlier["settings"] = complete_settings(earlier["settings"], request["settings"])
    for key in sorted((request.keys() | earlier.keys()) - {"identity"}):
        if earlier.get(key) != request.get(key):
            raise ResultError(
                f"{path.parent} holds a search with {key} = {earlier.get(key)}, but this command has {key} = "
                f"{request.get(key)}; choose another --name for this search, or replace the earlier one with --fresh"
            )
    before, now = earlier.get("identity"), request["identity"]
    if before is None and finished:
        return
    if before is None:
        raise ResultError(
            f"{path.parent} was started by an earlier version; start the search from scratch with --fresh"
        )
    if finished:
        before, now = ({k: v for k, v in parts.items() if not k.startswith(CODE)} for parts in (before, now))
    if changes := describe_changes(before, now):
        raise ResultError(f"{path.parent} holds a search made with {changes}; start it from scratch with --fresh")


def _make_tuner(task: SearchTask, trainable: Any, storage: Path) -> tune.Tuner:
    """Set up Ray's tuner for a new search."""
    settings = read_tune_settings()
    searcher: Any
    param_space = {key: tune.choice(range(len(values))) for key, values in task.space.items()}
    points = [_find_indices(task.space, point) for point in _choose_points(task)]
    if task.search == "optuna":
        searcher, n_samples = _make_optuna_searcher(task, points), task.budget.trials or -1
    else:
        searcher, n_samples = BasicVariantGenerator(points_to_evaluate=points), len(points)
    return tune.Tuner(
        trainable,
        param_space=param_space,
        tune_config=tune.TuneConfig(
            metric=BEST,
            mode="max",
            search_alg=searcher,
            scheduler=_make_scheduler(task, settings),
            num_samples=n_samples,
            time_budget_s=None if task.budget.minutes is None else 60 * task.budget.minutes,
        ),
        run_config=tune.RunConfig(
            name=storage.name,
            storage_path=str(storage.parent),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            callbacks=[_Watcher(task)],
        ),
    )


def _choose_points(task: SearchTask) -> list[Point]:
    """Choose the points to try, in order. Optuna gets only its first point here.

    Raises:
        SettingsError: the grid has more points than the budget allows.
    """
    current = task.base.resolved.values
    if task.search == "optuna":
        return draw_points(task.space, current, 1, task.job.seed)
    if task.search == "random":
        return draw_points(task.space, current, task.budget.trials or MOST_POINTS, task.job.seed)
    size = count_points(task.space)
    if task.budget.trials is not None and size > task.budget.trials:
        raise SettingsError(
            f"the grid of {task.base.label} has {size} points and the budget is {task.budget}; raise the budget, make "
            "the grid smaller with --space, or use --search random"
        )
    return list_grid(task.space)


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


def _count_reports(task: SearchTask) -> int:
    """Compute the number of reports of a trial that trains all epochs."""
    train = task.base.train
    return -(-train.epochs // train.eval_every)


def _make_scheduler(task: SearchTask, settings: TuneSettings) -> TrialScheduler | None:
    """Set up ASHA. Return None if the search does not stop trials early."""
    if task.scheduler == "none":
        return None
    max_reports = _count_reports(task)
    return _ASHA(
        time_attr="reports",
        max_t=max_reports,
        grace_period=min(settings.grace_reports, max_reports),
        reduction_factor=settings.reduction_factor,
    )


class _ASHA(ASHAScheduler):
    """ASHA that rebuilds its rungs when a search is resumed, from the reports of the trials. Ray does not save them."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial to its bracket, and its earlier reports to the rungs."""
        super().on_trial_add(tune_controller, trial)
        best = 0.0
        for reports, (_, value) in enumerate((trial.last_result or {}).get("curve", ()), start=1):
            best = max(best, value)
            self._trial_info[trial.trial_id].on_result(trial, reports, best)


def _trial(point: dict[str, int], job: TrialJob) -> None:
    """Train one point in a worker process and report after each validation.

    Ray names the folders of trials after this function.

    Args:
        point: setting -> index into its values; Ray passes it as first argument.
        job: input of all trials.
    """
    config = job.resolve({key: job.space[key][index] for key, index in point.items()})
    enter_worker(job.folder, config.resources.ray_cpus)
    try:
        data = config.restrict_data(job.data.train)
        learner = config.build_learner(data, job.seed, runtime.choose_device(job.device))
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = CheckpointFolder(Path(scratch) / "checkpoint")
            run = {**job.run_parts, "point": json.dumps(point, sort_keys=True)}
            if (earlier := tune.get_checkpoint()) is not None:
                _restore_checkpoint(earlier, checkpoint, run)
            fit(
                learner,
                job.data,
                config.train,
                config.evaluation,
                seed=job.seed,
                checkpoint=checkpoint,
                run=run,
                who=f"{config.label} on {job.dataset}",
                view=_Reporter(checkpoint.folder, config.train.valid_metric),
            )
    except Exception as error:  # a bad point, for example one with an infinite loss, must not end the search
        known = isinstance(error, HellmError)
        reason = str(error) if known else take_first_line(error)
        tune.report({BEST: 0.0, "reports": 0, "ended": True, "reason": reason})


def _restore_checkpoint(earlier: tune.Checkpoint, checkpoint: CheckpointFolder, run: Mapping[str, str]) -> None:
    """Copy the checkpoint of a trial's last report. An incomplete one is not copied: the trial starts from scratch.

    A checkpoint can be incomplete because Ray removes it before it records the newer one, and a search may be killed
    in between.

    Args:
        earlier: checkpoint of the last report.
        checkpoint: folder to fill.
        run: everything that the trial depends on.
    """
    try:
        earlier.to_directory(checkpoint.folder)
        checkpoint.load(run)
        checkpoint.load_best()
    except (OSError, CheckpointError):
        shutil.rmtree(checkpoint.folder, ignore_errors=True)


class _Reporter:
    """Progress view that reports every validation to Ray Tune."""

    def __init__(self, folder: Path, metric: str) -> None:
        self._folder, self._metric = folder, metric

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """Do nothing: steps are not reported."""

    def epoch(self, progress: Progress) -> None:
        """Report an epoch with a validation, together with its checkpoint."""
        curve = [(entry["epoch"], entry["valid"][self._metric]) for entry in progress.curve if entry["valid"]]
        if not progress.curve[-1]["valid"]:
            return
        best = next(entry["valid"] for entry in progress.curve if entry["epoch"] == progress.best_epoch)
        values = {
            BEST: progress.best_value,
            "reports": len(curve),
            "ended": progress.stopped,
            "epoch": progress.epoch,
            "best_epoch": progress.best_epoch,
            "valid": best,
            "curve": curve,
            "seconds": progress.train_seconds + progress.eval_seconds,
        }
        tune.report(values, checkpoint=tune.Checkpoint.from_directory(str(self._folder)))


class _Watcher(tune.Callback):
    """Ray callback that prints the progress of a search and copies its state."""

    def __init__(self, task: SearchTask) -> None:
        self._label, self._metric = task.base.label, task.base.train.valid_metric
        self._space = {key: list(values) for key, values in task.space.items()}
        self._total = f"/{task.budget.trials}" if task.budget.trials is not None and task.search != "grid" else ""
        self._last_print_s = time.monotonic()
        self._copied_ns = 0  # time of the newest state file that was copied

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Copy the state if Ray has written a new one in this step.

        Ray calls this function in the thread that writes the state, so the state is complete here.
        """
        if not trials:
            return
        staging = Path(trials[0].local_experiment_path)
        written_ns = max((path.stat().st_mtime_ns for path in _list_state_files(staging)), default=0)
        if written_ns > self._copied_ns:
            _copy_state(staging, Path(trials[0].remote_experiment_path))
            self._copied_ns = written_ns

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Print a line for a trial that has just reported, unless another line was printed a short time ago."""
        if time.monotonic() - self._last_print_s > LINE_EVERY_S and not result["ended"]:
            self._print_line(trials, trial, f"epoch {result['epoch']}, {self._metric} {result[BEST]:.4f}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print a line for a trial that has ended, was stopped or has failed."""
        last = trial.last_result or {}
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
        line = f"{self._label} trial {_read_number(trial.trial_id)}{self._total} ({point}): {text}; best {best:.4f}"
        print(line, file=sys.stderr, flush=True)


def _read_number(name: str) -> int:
    """Read the number of a trial, from 1, from its id or the name of its folder. Ray numbers trials as it creates them.

    >>> _read_number("d7aeb_00003"), _read_number("_trial_d7aeb_00003_3_2026-01-01_12-00-00")
    (4, 4)
    """
    found = re.search(r"[0-9a-f]+_(\d{5})(?=_|$)", name)
    assert found is not None, name
    return int(found[1]) + 1


def _collect_trials(task: SearchTask, results: tune.ResultGrid) -> list[Trial]:
    """Collect the trials that were started, in the order of their numbers."""
    settings, max_reports = read_tune_settings(), _count_reports(task)
    rungs = [settings.grace_reports * settings.reduction_factor**k for k in range(max_reports.bit_length())]
    trials: list[Trial] = []
    for result in (results[index] for index in range(len(results))):
        last = result.metrics or {}
        if BEST not in last and result.error is None:
            continue  # the budget was used up before the trial started
        crash = None if result.error is None else take_last_line(result.error)
        reason = last.get("reason") or crash
        stopped_status = "pruned" if task.scheduler == "asha" and last.get("reports") in rungs else "cut"
        trials.append(
            {
                "number": _read_number(Path(result.path).name),
                "values": {key: task.space[key][index] for key, index in (result.config or {}).items()},
                "status": "failed" if reason else "ended" if last["ended"] else stopped_status,  # type: ignore[typeddict-item]
                "reason": reason,
                "epochs": last.get("epoch", 0),
                "best_epoch": last.get("best_epoch", 0),
                "valid": dict(last.get("valid", {})),
                "curve": tuple(tuple(map(float, point)) for point in last.get("curve", ())),
                "seconds": float(last.get("seconds", 0.0)),
            }
        )
    return sorted(trials, key=lambda trial: trial["number"])
