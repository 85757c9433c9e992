"""Searching a row's settings with Ray Tune, on validation alone.

A trial is handed the training part and the validation targets (`types.SelectionData`); it has no test part that it
could report. It trains with the harness's own loop and reports after each validation, with its checkpoint, so that ASHA
can stop it, a lost one goes on from its last report, and a search that was killed is taken up where it stood.
Ray writes the state of a search in place, so that one killed meanwhile leaves half of it; a whole copy is kept beside.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Searcher

from hellm_recbole import __version__
from hellm_recbole.config.layers import load_settings, setting
from hellm_recbole.config.search_space import Point, Space, count_points, draw_points, list_grid
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
from hellm_recbole.experiments.resolve import Override, RunConfig, resolve_run
from hellm_recbole.experiments.run import build_learner_from, restrict_data
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
from hellm_recbole.identity.compare import CODE, SETTING, describe_changes, list_names
from hellm_recbole.models.base import ModelSpec
from hellm_recbole.system import runtime
from hellm_recbole.system.files import (
    NOT_AS_WRITTEN,
    SUMS,
    check_seal,
    ensure_folder,
    find_changed_file,
    remove_folder,
    replace_folder,
    scratch_folder,
    seal,
    sweep_temporaries,
    write_sums,
    write_text,
)
from hellm_recbole.system.locks import lock_path
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.progress import LINE_EVERY_S
from hellm_recbole.training.trainer import fit
from hellm_recbole.types import SelectionData

SchedulerName = Literal["asha", "none"]
SearchName = Literal["random", "optuna", "grid"]
BEST = "best"  # what trials report and are compared by: the best validation metric so far
RAY_FOLDER = "ray"
TUNER_FILE = "tuner.pkl"  # Ray's, of what was asked for
STATE_FOLDER = "state"  # copy of the state files among those of Ray, all of one moment
REQUEST_FILE = "request.json"
MOST_POINTS = 10_000  # drawn where only time bounds a search


@dataclass(frozen=True)
class TuneSettings:
    """How trials are pruned; values in `properties/tune.yaml`.

    Attributes:
        grace_reports: reports before a trial may be stopped.
        reduction_factor: of the trials at a rung, one in this many goes on.
        max_failures: times a trial whose process died is begun again.
    """

    grace_reports: int = setting(ge=1)
    reduction_factor: int = setting(ge=2)
    max_failures: int = setting(ge=0)


def read_tune_settings() -> TuneSettings:
    """The values of `properties/tune.yaml`."""
    return load_settings(TuneSettings, "tune.yaml")


@dataclass(frozen=True)
class SearchBudget:
    """What a search may spend: a number of trials, or minutes.

    >>> Budget.parse("trials=20"), str(Budget.parse("minutes=1.5"))
    (Budget(trials=20, minutes=None), 'minutes=1.5')
    """

    trials: int | None
    minutes: float | None

    @staticmethod
    def parse(text: str) -> SearchBudget:
        """From `trials=N` or `minutes=M`.

        Raises:
            SettingsError: it is neither.
        """
        kind, _, amount = text.partition("=")
        try:
            if kind == "trials" and int(amount) > 0:
                return SearchBudget(int(amount), None)
            if kind == "minutes" and 0 < float(amount) < math.inf:
                return SearchBudget(None, float(amount))
        except ValueError:
            pass
        raise SettingsError(f"--budget {text!r} is not understood; write trials=20 or minutes=60")

    def __str__(self) -> str:
        return f"minutes={self.minutes:g}" if self.trials is None else f"trials={self.trials}"


@dataclass(frozen=True)
class TrialJob:
    """All that a trial is handed, beside its point.

    Attributes:
        model: name of the row.
        dataset: name.
        registry: our models.
        preset: name.
        overrides: the settings of the search.
        space: values that a point's indices stand for.
        data: training part and validation targets; there is no test part in it.
        seed: of the run, the same for all trials.
        device: as on the command line.
        folder: the command's working folder.
        run: everything that all trials depend on: name -> value or digest.
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
    run: Mapping[str, str]

    def resolve(self, point: Point) -> RunConfig:
        """The row at one point."""
        tried = [Override(self.model, key, value, f"{key} of the search") for key, value in point.items()]
        return resolve_run(self.model, self.dataset, self.registry, self.preset, [*self.overrides, *tried])


@dataclass(frozen=True)
class SearchTask:
    """One search for one row.

    Attributes:
        job: what trials are handed.
        base: the row without a search.
        space: from `search_space`.
        name: of the search.
        budget: what it may spend.
        scheduler: whether ASHA prunes.
        search: how points are chosen.
        split_hash: of the dataset's split.
        n_candidates: items ranked.
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

    def request(self) -> dict[str, Any]:
        """All that decides the search, as it is kept on disk."""
        fixed = {key: value for key, value in self.base.reproducibility_settings().items() if key not in self.space}
        asked = {
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
            "identity": {key: value for key, value in self.job.run.items() if not key.startswith(SETTING)},
        }
        copied: dict[str, Any] = json.loads(json.dumps(asked))
        return copied


def locate_search_of(task: SearchTask, output: Path) -> Path:
    """Where a search lies in the folder of all results."""
    return locate_search(output, task.job.dataset, task.base.label, task.name)


def needs_lock(folder: Path) -> bool:
    """Whether a command writes in the folder of a search: it is not finished, or was killed before it was tidied up."""
    left = (folder / RAY_FOLDER, folder / STATE_FOLDER, lock_path(folder))
    return not (folder / SEARCH_FILE).exists() or any(path.exists() for path in left)


def run_search(task: SearchTask, output: Path, *, resume: bool, fresh: bool) -> SearchResult:
    """Run a search to its end and write `sweep.json`; a finished one is only read. Needs a Ray cluster.

    Args:
        task: what to search.
        output: folder of all results.
        resume: go on with a search that was stopped.
        fresh: start anew.

    Raises:
        ResultError: there is another search in the folder, or a stopped one and `resume` was not asked for.
        SettingsError: the budget does not hold the grid.
        MissingDependency: Optuna is not installed.
    """
    request, folder = task.request(), locate_search_of(task, output)
    if fresh:
        remove_folder(folder, output)
    earlier = folder / REQUEST_FILE
    if earlier.exists():
        finished = (folder / SEARCH_FILE).exists()
        _refuse_another(earlier, request, finished=finished)
        if finished:
            sweep = read_search(folder / SEARCH_FILE)
            _remove_work(folder, output)
            print(f"{task.base.label} on {task.job.dataset}, search {task.name}: {describe_kept_search(sweep)}")
            return sweep
        if not resume:
            raise ResultError(
                f"{folder} holds a search that was stopped; go on with --resume, or start anew with --fresh"
            )
    sweep_temporaries(ensure_folder(folder))
    storage = (folder / RAY_FOLDER).resolve()
    asked = task.base.resources
    trainable = tune.with_resources(
        tune.with_parameters(_trial, job=task.job), request_resources(asked.ray_cpus, asked.ray_gpus)
    )
    if earlier.exists() and _put_state_back(folder / STATE_FOLDER, storage):
        tuner = _restored(storage, trainable)
    else:
        _remove_work(folder, output)
        tuner = _tuner(task, trainable, storage)
        write_text(earlier, json.dumps(seal(request), indent=1))
    trials = _trials(task, tuner.fit())
    sweep = SearchResult(
        schema=SCHEMA,
        **request,
        versions={**runtime.list_versions(), "hellm_recbole": __version__},  # type: ignore[typeddict-item]
        **runtime.read_git_state(),
        seconds=sum(trial["seconds"] for trial in trials),
        trials=tuple(trials),
    )
    write_search(folder, sweep)
    _remove_work(folder, output)
    return sweep


def _remove_work(folder: Path, output: Path) -> None:
    """Remove state and checkpoints of trials; `run.py --tuned` trains the winner anew."""
    for name in (STATE_FOLDER, RAY_FOLDER):
        remove_folder(folder / name, output)


def _keep_state(staging: Path, storage: Path) -> None:
    """Copy the state that Ray has just written, and is about to copy to its storage file by file.

    Raises:
        OutputError: it cannot be written.
    """
    target = storage.parent / STATE_FOLDER
    with scratch_folder(target.parent, target.name) as temporary:
        for path in (*_state_files(staging), storage / TUNER_FILE):
            shutil.copyfile(path, temporary / path.name)
        write_sums(temporary)
        replace_folder(temporary, target)


def _put_state_back(kept: Path, storage: Path) -> bool:
    """Put the whole state of a search in the place of what Ray may have left half-written.

    Args:
        kept: the copy.
        storage: Ray's folder.

    Returns:
        Whether there is a state. There is none where the search was killed before its first trial.

    Raises:
        ResultError: the copy is broken.
    """
    if not (kept / SUMS).exists():
        return False
    files = [*_state_files(kept), kept / TUNER_FILE]
    try:
        if changed := find_changed_file(kept, [path.name for path in files]):
            raise ResultError(f"{changed}: {NOT_AS_WRITTEN}; start the search anew with --fresh")
        ensure_folder(storage)
        for path in _state_files(storage):
            path.unlink()
        for path in files:
            shutil.copyfile(path, storage / path.name)
        for trial in storage.glob("_trial_*"):  # Ray gives up one whose checkpoint has no folder
            newest = max((int(path.name[-6:]) for path in trial.glob("checkpoint_" + 6 * "[0-9]")), default=0)
            for number in range(newest):
                (trial / f"checkpoint_{number:06d}").mkdir(exist_ok=True)
    except OSError as error:
        raise ResultError(f"{kept} cannot be read or copied to {storage} ({error}); start anew with --fresh") from error
    return True


def _state_files(folder: Path) -> list[Path]:
    """Files of the state of a search that change while it runs: trials, points, callbacks."""
    return [path for path in sorted(folder.glob("[!.]*-*.*")) if path.suffix in (".json", ".pkl") and path.is_file()]


def _restored(storage: Path, trainable: Any) -> tune.Tuner:
    """A search as Ray Tune left it.

    Raises:
        ResultError: another version wrote it, or its state is broken.
    """
    try:
        return tune.Tuner.restore(str(storage), trainable, resume_unfinished=True, resume_errored=True)
    except Exception as error:  # Ray keeps pickles: whatever an older class of ours, or of Ray's, lacks
        raise ResultError(
            f"{storage} cannot be resumed ({take_last_line(error)}): another version wrote it, or it is broken; start "
            "the search anew with --fresh"
        ) from error


def describe_kept_search(sweep: SearchResult) -> str:
    """What is said of a finished search that is not run again: whether what it depends on is still the same."""
    if not sweep.identity:
        return "finished before, kept; features, code: unknown (recorded by an earlier version)"
    code = {key.removeprefix(CODE): value for key, value in sweep.identity.items() if key.startswith(CODE)}
    if changed := find_changed_modules(code):
        return f"finished before, kept; its code has changed since ({list_names(changed)}; --fresh runs it again)"
    return "finished before, kept"


def _refuse_another(path: Path, request: Mapping[str, Any], *, finished: bool) -> None:
    """Refuse to go on with a search that was asked for differently, or that depends on something that has changed.

    Args:
        path: what was asked for before.
        request: what is asked for now.
        finished: the search has ended; it is kept where its code alone has changed, or where an earlier version of this
            program recorded it.

    Raises:
        ResultError: names the first difference.
    """
    try:
        earlier = check_seal(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise ResultError(f"{path} cannot be read ({error}); run the search again with --fresh") from error
    for key in sorted((request.keys() | earlier.keys()) - {"identity"}):
        if earlier.get(key) != request.get(key):
            raise ResultError(
                f"{path.parent} holds a search with {key} = {earlier.get(key)} and now it is {request.get(key)}; "
                "give this one a --name of its own, or replace the other with --fresh"
            )
    before, now = earlier.get("identity"), request["identity"]
    if before is None and finished:
        return
    if before is None:
        raise ResultError(f"{path.parent} was begun by an earlier version; start the search anew with --fresh")
    if finished:
        before, now = ({k: v for k, v in parts.items() if not k.startswith(CODE)} for parts in (before, now))
    if changes := describe_changes(before, now):
        raise ResultError(f"{path.parent} holds a search made with {changes}; start it anew with --fresh")


def _tuner(task: SearchTask, trainable: Any, storage: Path) -> tune.Tuner:
    """A search that has not begun."""
    settings = read_tune_settings()
    points = _points(task)
    searcher: Any
    sizes = {key: tune.choice(range(len(values))) for key, values in task.space.items()}
    started = [_indices(task.space, point) for point in points]
    if task.search == "optuna":
        searcher, n_samples = _optuna(task, started), task.budget.trials or -1
    else:
        searcher, n_samples = BasicVariantGenerator(points_to_evaluate=started), len(started)
    return tune.Tuner(
        trainable,
        param_space=sizes,
        tune_config=tune.TuneConfig(
            metric=BEST,
            mode="max",
            search_alg=searcher,
            scheduler=_scheduler(task, settings),
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


def _points(task: SearchTask) -> list[Point]:
    """The points to try, in order; for Optuna those to begin with.

    Raises:
        SettingsError: the budget does not hold the grid.
    """
    current = task.base.resolved.values
    if task.search == "optuna":
        return draw_points(task.space, current, 1, task.job.seed)
    if task.search == "random":
        return draw_points(task.space, current, task.budget.trials or MOST_POINTS, task.job.seed)
    size = count_points(task.space)
    if task.budget.trials is not None and size > task.budget.trials:
        raise SettingsError(
            f"the grid of {task.base.label} has {size} points and the budget is {task.budget}; raise it, narrow the "
            "grid with --space, or use --search random"
        )
    return list_grid(task.space)


def _indices(space: Space, point: Point) -> dict[str, int]:
    """A point as positions in the lists of values, which any searcher can handle whatever the values are."""
    return {key: list(space[key]).index(value) for key, value in point.items()}


def _optuna(task: SearchTask, started: Sequence[Mapping[str, int]]) -> Searcher:
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError as error:
        raise MissingDependency(
            "--search optuna needs the package optuna; pip install 'hellm-recbole[optuna]', or use --search random"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(points_to_evaluate=[dict(point) for point in started], seed=task.job.seed)


def _most_reports(task: SearchTask) -> int:
    train = task.base.train
    return -(-train.epochs // train.eval_every)


def _scheduler(task: SearchTask, settings: TuneSettings) -> TrialScheduler | None:
    if task.scheduler == "none":
        return None
    most = _most_reports(task)
    return _ASHA(
        time_attr="reports",
        max_t=most,
        grace_period=min(settings.grace_reports, most),
        reduction_factor=settings.reduction_factor,
    )


class _ASHA(ASHAScheduler):
    """ASHA that is told again what trials had reported when a search is taken up; Ray does not keep its rungs."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Put a trial into its bracket, and what it has reported onto the rungs."""
        super().on_trial_add(tune_controller, trial)
        best = 0.0
        for reports, (_, value) in enumerate((trial.last_result or {}).get("curve", ()), start=1):
            best = max(best, value)
            self._trial_info[trial.trial_id].on_result(trial, reports, best)


def _trial(config: dict[str, int], job: TrialJob) -> None:
    """Train one point in a worker's process, with a report after each validation."""
    plan = job.resolve({key: job.space[key][index] for key, index in config.items()})
    enter_worker(job.folder, plan.resources.ray_cpus)
    try:
        data = restrict_data(plan, job.data.train)
        row = build_learner_from(plan, data, job.seed, runtime.choose_device(job.device))
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = CheckpointFolder(Path(scratch) / "checkpoint")
            run = {**job.run, "point": json.dumps(config, sort_keys=True)}
            if (earlier := tune.get_checkpoint()) is not None:
                _take_up(earlier, checkpoint, run)
            fit(
                row,
                job.data,
                plan.train,
                plan.evaluation,
                seed=job.seed,
                checkpoint=checkpoint,
                run=run,
                who=f"{plan.label} on {job.dataset}",
                view=_Reporter(checkpoint.folder, plan.train.valid_metric),
            )
    except Exception as error:  # a bad point, such as one whose loss became infinite, is no reason to end the search
        known = isinstance(error, HellmError)
        reason = str(error) if known else take_first_line(error)
        tune.report({BEST: 0.0, "reports": 0, "ended": True, "reason": reason})


def _take_up(earlier: tune.Checkpoint, checkpoint: CheckpointFolder, run: Mapping[str, str]) -> None:
    """Copy the checkpoint of a trial's last report; nothing where it is not whole, and the trial begins anew.

    Ray removes a checkpoint before it writes that there is a newer one, and a search may be killed in between.
    """
    try:
        earlier.to_directory(checkpoint.folder)
        checkpoint.load(run)
        checkpoint.load_best()
    except (OSError, CheckpointError):
        shutil.rmtree(checkpoint.folder, ignore_errors=True)


class _Reporter:
    """The trainer's view of a trial: tells Ray Tune of every validation."""

    def __init__(self, folder: Path, metric: str) -> None:
        self._folder, self._metric = folder, metric

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """Steps are not reported."""

    def epoch(self, progress: Progress) -> None:
        """Report an epoch that was validated, with its checkpoint."""
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
    """Prints a line for each trial that is over, and now and then how the others stand; keeps the search's state."""

    def __init__(self, task: SearchTask) -> None:
        self._row, self._metric = task.base.label, task.base.train.valid_metric
        self._space = {key: list(values) for key, values in task.space.items()}
        self._of = f"/{task.budget.trials}" if task.budget.trials is not None and task.search != "grid" else ""
        self._said = time.monotonic()
        self._kept = 0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Keep the state, if Ray has written another one in this step; it is whole, for this thread writes it."""
        if not trials:
            return
        staging = Path(trials[0].local_experiment_path)
        written = max((path.stat().st_mtime_ns for path in _state_files(staging)), default=0)
        if written > self._kept:
            _keep_state(staging, Path(trials[0].remote_experiment_path))
            self._kept = written

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Now and then, one line for the trial that has just reported."""
        if time.monotonic() - self._said > LINE_EVERY_S and not result["ended"]:
            self._say(trials, trial, f"epoch {result['epoch']}, {self._metric} {result[BEST]:.4f}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """One line for each trial."""
        last = trial.last_result or {}
        if last.get("reason"):
            self._say(trials, trial, f"failed: {last['reason']}")
        elif last:
            how = "ended" if last["ended"] else "stopped"
            reached = f"{self._metric} {last[BEST]:.4f} @{last['best_epoch']}"
            self._say(trials, trial, f"{how} after epoch {last['epoch']}, {reached}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial whose process was lost; Ray begins it again a few times."""
        self._say(trials, trial, "lost")

    def _say(self, trials: list[Any], trial: Any, text: str) -> None:
        self._said = time.monotonic()
        point = ", ".join(f"{key}={self._space[key][index]}" for key, index in trial.config.items())
        best = max((other.last_result or {}).get(BEST, 0.0) for other in trials)
        line = f"{self._row} trial {_number(trial.trial_id)}{self._of} ({point}): {text}; best {best:.4f}"
        print(line, file=sys.stderr, flush=True)


def _number(name: str) -> int:
    """Place of a trial in the order in which Ray made them, from 1; from its id or the name of its folder.

    >>> _number("d7aeb_00003"), _number("_trial_d7aeb_00003_3_2026-01-01_12-00-00")
    (4, 4)
    """
    found = re.search(r"[0-9a-f]+_(\d{5})(?=_|$)", name)
    assert found is not None, name
    return int(found[1]) + 1


def _trials(task: SearchTask, results: tune.ResultGrid) -> list[Trial]:
    """The trials that have begun, in that order."""
    settings, most = read_tune_settings(), _most_reports(task)
    rungs = [settings.grace_reports * settings.reduction_factor**k for k in range(most.bit_length())]
    trials: list[Trial] = []
    for result in (results[index] for index in range(len(results))):
        last = result.metrics or {}
        if BEST not in last and result.error is None:
            continue  # it was waiting when the budget was spent
        lost = None if result.error is None else take_last_line(result.error)
        reason = last.get("reason") or lost
        stopped = "pruned" if task.scheduler == "asha" and last.get("reports") in rungs else "cut"
        trials.append(
            {
                "number": _number(Path(result.path).name),
                "values": {key: task.space[key][index] for key, index in (result.config or {}).items()},
                "status": "failed" if reason else "ended" if last["ended"] else stopped,  # type: ignore[typeddict-item]
                "reason": reason,
                "epochs": last.get("epoch", 0),
                "best_epoch": last.get("best_epoch", 0),
                "valid": dict(last.get("valid", {})),
                "curve": tuple(tuple(map(float, point)) for point in last.get("curve", ())),
                "seconds": float(last.get("seconds", 0.0)),
            }
        )
    return sorted(trials, key=lambda trial: trial["number"])
