"""Runs in Weights & Biases.

The server, the project and the mode come from W&B's own environment variables, such as `WANDB_PROJECT`, `WANDB_ENTITY`
and `WANDB_MODE=offline`. Its default for a server that does not answer, to wait for 90 seconds at the start and forever
at the end, is shortened unless the user has set it: what was not sent stays in the folder of the run, and `wandb sync`
sends it later. Its own lines, more than thirty a run, are not printed unless the user asks for them with
`WANDB_SILENT=false`; the address of each run is.
"""

from __future__ import annotations

import importlib
import io
import os
import uuid
from collections.abc import Mapping
from contextlib import redirect_stderr
from typing import Any

from hellm_recbole.errors import TrackerError
from hellm_recbole.system.files import ensure_folder
from hellm_recbole.training.trackers.base import PROJECT, Outcome, TrackedRun, announce, read_id, write_id

NAME = "wandb"
# Unless the environment has them; times in seconds.
SETTINGS = {"init_timeout": 15.0, "finish_timeout": 30.0, "finish_timeout_raises": True, "silent": True}
LONGEST_TAG = 64  # characters


class WandbTracker:
    """A run in Weights & Biases. A trial has the group of its search and the job type `trial`."""

    def __init__(self, run: TrackedRun, first_step: int | None) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._refuse_missing_login(wandb)
        identifier = read_id(run.folder, NAME) or uuid.uuid4().hex[:16]
        settings = {key: value for key, value in SETTINGS.items() if f"WANDB_{key.upper()}" not in os.environ}
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=identifier,
            resume="allow",
            dir=str(ensure_folder(run.folder)),  # without it, W&B would write to a temporary folder
            config={**run.tags, **run.settings},
            group=run.group,
            job_type=run.kind,
            tags=[
                f"{name}: {run.tags[name]}"[:LONGEST_TAG] for name in ("dataset", "model", "preset") if name in run.tags
            ],
            reinit="create_new",  # runs of the user's own code stay as they are
            settings=wandb.Settings(**settings),
        )
        if read_id(run.folder, NAME) is None and not self._run.offline:
            announce(run, self._run.url)
        write_id(run.folder, NAME, identifier)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one epoch."""
        self._run.log(dict(values), step=step)

    def finish(self, outcome: Outcome) -> None:
        """Set the summary and the further tags, and finish the run."""
        self._run.summary.update(dict(outcome.summary))
        self._run.config.update(dict(outcome.tags), allow_val_change=True)
        if outcome.tags.get("best") == "true":
            self._run.tags = (*self._run.tags, "best")
        self._run.finish(exit_code=0 if outcome.status == "success" else 1)

    def close(self) -> None:
        """Finish the run without an outcome."""
        self._run.finish()

    @staticmethod
    def _refuse_missing_login(wandb: Any) -> None:
        """Refuse to send to a server without a login. W&B itself would ask in the terminal and wait for an answer.

        Raises:
            TrackerError: there is no login.
        """
        if wandb.setup().settings.mode not in ("online", "run"):
            return
        with redirect_stderr(io.StringIO()):  # it says where it has found the key
            has_key = wandb.login(prompt=False, verify=False)
        if not has_key:
            raise TrackerError("there is no login; run `wandb login`, or set WANDB_MODE=offline to keep runs here")
