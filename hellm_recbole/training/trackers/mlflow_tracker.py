"""Runs in MLflow, through its client: nothing is active in the process, so that the user's own runs are not disturbed.

The address of the server, the name of the experiment and all else come from MLflow's own environment variables, such as
`MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME`. Its default for a server that does not answer, seven retries of two
minutes, is shortened unless the user has set it.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hellm_recbole.errors import TrackerError
from hellm_recbole.training.trackers.base import (
    PROJECT,
    Outcome,
    TrackedRun,
    announce,
    hide_login,
    name_metric,
    read_id,
    simplify,
    write_id,
)

NAME = "mlflow"
STATES = {"success": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
MOST_PARAMS = 100  # in one request
LONGEST_VALUE = 6000  # characters of a parameter
# Seconds and repetitions of a request, for a server that does not answer; this project prints addresses itself.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MlflowTracker:
    """A run in MLflow. A trial is a nested run of its search."""

    def __init__(self, run: TrackedRun, first_step: int | None) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._mlflow: Any = importlib.import_module("mlflow")
        self._client = self._mlflow.MlflowClient()
        with self._explain_failure():
            found = read_id(run.folder, NAME)
            self.run_id = self._create(run) if found is None or not self._continue(found) else found
        write_id(run.folder, NAME, self.run_id)
        if self.run_id != found and (address := self._mlflow.get_tracking_uri()).startswith("http"):
            experiment = self._client.get_run(self.run_id).info.experiment_id
            announce(run, f"{address}/#/experiments/{experiment}/runs/{self.run_id}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one epoch."""
        now_ms = int(time.time() * 1000)
        metrics = [
            self._mlflow.entities.Metric(name_metric(name), float(value), now_ms, step)
            for name, value in values.items()
        ]
        with self._explain_failure():
            self._client.log_batch(self.run_id, metrics=metrics)

    def finish(self, outcome: Outcome) -> None:
        """Log the summary as metrics at the chosen epoch, set the further tags, and end the run."""
        self.log(outcome.step, outcome.summary)
        with self._explain_failure():
            for name, value in outcome.tags.items():
                self._client.set_tag(self.run_id, name, value)
            self._client.set_terminated(self.run_id, STATES[outcome.status])

    def close(self) -> None:
        """Do nothing: the client keeps nothing open."""

    def _create(self, run: TrackedRun) -> str:
        """Create a run with its parameters and tags, below its search if it has one. Return its identifier."""
        tags = {**run.tags, "kind": run.kind, "mlflow.source.name": PROJECT}
        if commit := run.tags.get("git_commit"):
            tags["mlflow.source.git.commit"] = commit
        if run.group is not None:
            tags["group"] = run.group
        if run.parent is not None:
            tags["mlflow.parentRunId"] = read_id(run.parent.folder, NAME) or MlflowTracker(run.parent, None).run_id
        created = self._client.create_run(self._find_experiment(), tags=tags, run_name=run.name)
        identifier: str = created.info.run_id
        params = [
            self._mlflow.entities.Param(key, str(value)[:LONGEST_VALUE])
            for key, value in simplify(run.settings).items()
        ]
        for start in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(identifier, params=params[start : start + MOST_PARAMS])
        return identifier

    def _continue(self, identifier: str) -> bool:
        """Set an earlier run to running again. Return whether the server still has it."""
        try:
            self._client.update_run(identifier, status="RUNNING")
        except self._mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def _find_experiment(self) -> str:
        """Find the experiment of all runs, or create it. Return its identifier."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except self._mlflow.exceptions.MlflowException:  # another process has just created it
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    @contextmanager
    def _explain_failure(self) -> Iterator[None]:
        """Hide the lines about repeated requests, and name the server that does not answer.

        Raises:
            TrackerError: it does not answer.
        """
        from requests.exceptions import ConnectionError, Timeout

        logger = logging.getLogger("urllib3.connectionpool")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        except Exception as error:
            chain: list[BaseException] = [error]
            while (earlier := chain[-1].__cause__ or chain[-1].__context__) is not None:
                chain.append(earlier)
            if any(isinstance(one, ConnectionError | Timeout) for one in chain):
                raise TrackerError(f"{hide_login(self._mlflow.get_tracking_uri())} does not answer") from error
            raise
        finally:
            logger.setLevel(level)
