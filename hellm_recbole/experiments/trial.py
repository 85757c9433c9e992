"""One trial of a search: train in a worker process, and report the validation metric and the checkpoint to Ray.

With these reports a scheduler can stop a trial early, and a trial whose process died continues from its last report.
Ray is imported in the functions that need it, because it takes long to import.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hellm_recbole.config.search_space import Space
from hellm_recbole.errors import CheckpointError, HellmError, take_first_line
from hellm_recbole.experiments.ray_cluster import enter_worker
from hellm_recbole.experiments.run_config import TrainedRunConfig
from hellm_recbole.experiments.search_task import TrialJob
from hellm_recbole.experiments.sweeps import Trial
from hellm_recbole.system import runtime
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.trainer import fit

if TYPE_CHECKING:
    from ray import tune

BEST = "best"  # key of the reported value that trials are compared by: the best validation metric so far


def train_trial(point: dict[str, int], job: TrialJob) -> None:
    """Train one trial in a worker process and report after each validation.

    Ray names the folders of trials after this function.

    Args:
        point: setting -> index into its values; Ray passes it as first argument.
        job: input of all trials.
    """
    from ray import tune

    config = job.resolve(point)
    enter_worker(job.folder, config.resources.ray_cpus)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = CheckpointFolder(Path(scratch) / "checkpoint")
            run = {**job.run_parts, "point": json.dumps(point, sort_keys=True)}
            if (earlier := tune.get_checkpoint()) is not None:
                restore_checkpoint(earlier, checkpoint, run)
            _fit(config, job, checkpoint, run)
    except Exception as error:  # a bad point, for example one with an infinite loss, must not end the search
        known = isinstance(error, HellmError)
        reason = str(error) if known else take_first_line(error)
        tune.report({BEST: 0.0, "reports": 0, "ended": True, "reason": reason})


def _fit(config: TrainedRunConfig, job: TrialJob, checkpoint: CheckpointFolder, run: Mapping[str, str]) -> None:
    """Build the learner of a trial and train it, from its checkpoint if there is one.

    Args:
        config: run config of the point.
        job: input of all trials.
        checkpoint: folder of the trial's checkpoint.
        run: everything that the trial depends on.
    """
    data = config.restrict_data(job.data.train)
    learner = config.build_learner(data, job.seed, runtime.choose_device(job.device))
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


def restore_checkpoint(earlier: tune.Checkpoint, checkpoint: CheckpointFolder, run: Mapping[str, str]) -> None:
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

    def step(self, epoch: int, step: int, n_steps: int, losses: Mapping[str, float]) -> None:
        """Do nothing: steps are not reported."""

    def epoch(self, progress: Progress) -> None:
        """Report an epoch with a validation, together with its checkpoint."""
        from ray import tune

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


def read_number(name: str) -> int:
    """Read the number of a trial, from 1, from its id or the name of its folder. Ray numbers trials as it creates them.

    >>> read_number("d7aeb_00003"), read_number("train_trial_d7aeb_00003_3_2026-01-01_12-00-00")
    (4, 4)
    """
    found = re.search(r"[0-9a-f]+_(\d{5})(?=_|$)", name)
    assert found is not None, name
    return int(found[1]) + 1


def describe_trial(
    space: Space,
    rungs: Collection[int],
    number: int,
    point: Mapping[str, int],
    last: Mapping[str, Any],
    error: str | None,
) -> Trial:
    """Describe the end of a trial.

    Args:
        space: setting -> values to try.
        rungs: numbers of reports after which the scheduler may stop a trial.
        number: number of the trial, from 1.
        point: setting -> index into its values.
        last: last report of the trial; empty if there is none.
        error: error of its process; None if there was none.
    """
    reason = last.get("reason") or error
    stopped = "pruned" if last.get("reports") in rungs else "cut"
    return {
        "number": number,
        "values": {key: space[key][index] for key, index in point.items()},
        "status": "failed" if reason else "ended" if last["ended"] else stopped,  # type: ignore[typeddict-item]
        "reason": reason,
        "epochs": last.get("epoch", 0),
        "best_epoch": last.get("best_epoch", 0),
        "valid": dict(last.get("valid", {})),
        "curve": tuple(tuple(map(float, pair)) for pair in last.get("curve", ())),
        "seconds": float(last.get("seconds", 0.0)),
    }
