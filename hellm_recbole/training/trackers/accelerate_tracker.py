"""Runs in further trackers that accelerate knows, such as Aim and Comet: its classes, without its `Accelerator`.

accelerate's classes do the work (`accelerate.tracking`). They ask its `PartialState` in each call, which may start a
process group, checks all GPUs of the machine and changes the number of threads, and this project opens trackers in the
main process only. So the classes are changed not to ask (`main_process_only = False`), and while they are called, the
logger of their module is a plain one: accelerate's own raises an error if there is no `PartialState`.

They are not used for TensorBoard, W&B and MLflow, because they have no groups, no nested runs, no summary and no status
at the end, and because they change the run that is active in the process.
"""

from __future__ import annotations

import importlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hellm_recbole.training.trackers.base import (
    PROJECT,
    Outcome,
    TrackedRun,
    name_metric,
    read_id,
    simplify,
    write_id,
)

MODULE = "accelerate.tracking"
Options = Callable[[TrackedRun, str, bool], dict[str, Any]]  # (run, its identifier, whether it is continued)

# Options of the tracker itself: one project for all runs, and a run that can be continued.
OPTIONS: Mapping[str, Options] = {
    "aim": lambda run, identifier, continued: {
        "logging_dir": ".",  # one repository for all runs, in the working folder
        **({"run_hash": identifier} if continued else {}),
    },
    "clearml": lambda run, identifier, continued: {
        "task_name": run.name,
        "tags": [run.kind],
        "reuse_last_task_id": False,
        "continue_last_task": identifier if continued else False,
        "auto_connect_arg_parser": False,
        "auto_connect_frameworks": False,
    },
    "comet_ml": lambda run, identifier, continued: {"experiment_key": identifier, "mode": "get_or_create"},
    "dvclive": lambda run, identifier, continued: {
        "dir": str(run.folder / "dvclive"),
        "resume": continued,
        "save_dvc_exp": False,  # it would commit to the user's repository
        "dvcyaml": None,  # it would be written to the working folder
        "report": None,
    },
    "swanlab": lambda run, identifier, continued: {
        "experiment_name": run.name,
        "id": identifier,
        "resume": "allow",
        "group": run.group,
    },
    "trackio": lambda run, identifier, continued: {
        "name": f"{run.name} {identifier[:6]}",  # its identifier of a run
        "group": run.group,
        "resume": "allow",
    },
}


class AccelerateTracker:
    """A run in one of accelerate's trackers.

    Settings, tags, group and kind of the run are its configuration, and the summary is logged once at the end. Metrics
    have `_at_` in place of `@`, which some of the trackers do not allow.

    Args:
        name: accelerate's name of the tracker.
        run: the run.
    """

    def __init__(self, name: str, run: TrackedRun) -> None:
        self._tracking: Any = importlib.import_module(MODULE)
        found = read_id(run.folder, name)
        identifier = found or uuid.uuid4().hex
        options = OPTIONS[name](run, identifier, found is not None)
        base: Any = self._tracking.LOGGER_TYPE_TO_CLASS[name]
        self._config = simplify({"name": run.name, "kind": run.kind, "group": run.group, **run.tags, **run.settings})
        with self._use_plain_logger():
            self._tracker: Any = type(base.__name__, (base,), {"main_process_only": False})(PROJECT, **options)
            self._tracker.start()
            self._tracker.store_init_configuration(self._config)
        own = getattr(self._tracker.tracker, {"aim": "hash", "clearml": "id"}.get(name, ""), None)
        write_id(run.folder, name, identifier if own is None else str(own))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one epoch."""
        self._log(values, step)

    def finish(self, outcome: Outcome) -> None:
        """Log the summary once, add the further tags to the configuration, and close the run."""
        with self._use_plain_logger():
            self._tracker.store_init_configuration({**self._config, **outcome.tags, "status": outcome.status})
        self._log(outcome.summary, None)
        self.close()

    def close(self) -> None:
        """Close the run without an outcome."""
        with self._use_plain_logger():
            self._tracker.finish()

    def _log(self, values: Mapping[str, float], step: int | None) -> None:
        """Log values; without a step, the tracker decides how it shows them."""
        if values:
            with self._use_plain_logger():
                self._tracker.log({name_metric(name): value for name, value in values.items()}, step=step)

    @contextmanager
    def _use_plain_logger(self) -> Iterator[None]:
        """Use a plain logger in accelerate's module in the block."""
        usual, self._tracking.logger = self._tracking.logger, logging.getLogger(MODULE)
        try:
            yield
        finally:
            self._tracking.logger = usual
