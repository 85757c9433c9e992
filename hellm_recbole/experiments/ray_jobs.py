"""Runs side by side as tasks of a Ray cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import ray
import rich.live
import rich.table
from rich.console import Console

from hellm_recbole.data.atomic import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, take_last_line
from hellm_recbole.experiments.jobs import JobLocks, RunJob, report_outcome, run_job
from hellm_recbole.experiments.ray_cluster import connect_cluster, enter_worker, refuse_numbered, request_resources
from hellm_recbole.experiments.run import (
    record_lost_run,
)
from hellm_recbole.system import runtime
from hellm_recbole.training.progress import LINE_EVERY_S

MAX_RETRIES = 3  # a row whose worker died is begun again so often, from its last epoch
LOOK_EVERY_S = 1.0

Part = TypeVar("Part", Dataset, Split)


def run_on_ray(
    jobs: Sequence[RunJob],
    data: Mapping[str, tuple[Dataset, Split]],
    address: str,
    n_cpus: int | None,
    device: str,
    locks: JobLocks,
) -> int:
    """Run all rows as tasks of a Ray cluster, each as soon as what it needs is there; returns how many failed.

    Nodes of a cluster need the results folder and the prepared data at the same place. A task whose worker died is
    begun again and goes on from its last epoch; a row that fails leaves the others alone.

    Args:
        jobs: runs, pretrained models before those that read their embeddings.
        data: dataset -> what its rows run on.
        address: see `connect_cluster`.
        n_cpus: CPUs of a local cluster; None offers all.
        device: as on the command line; chosen anew where the task runs.
        locks: of the runs; each is given back when its run is over.

    Raises:
        HellmError: there is no cluster at the address.
        SettingsError: a row asks for more than any node has, or the device has a number.
    """
    refuse_numbered(device)
    with connect_cluster(address, n_cpus):
        board: Any = _ProgressBoard.remote()  # type: ignore[attr-defined]
        shared = {name: ray.put((_movable(dataset), _movable(split))) for name, (dataset, split) in data.items()}
        asked = [
            request_resources(job.config.resources.ray_cpus, job.config.resources.ray_gpus) for job in jobs
        ]  # before any runs
        running: dict[Any, RunJob] = {}
        pretrained: dict[tuple[str, int, str], Any] = {}
        for job, size in zip(jobs, asked, strict=True):
            needs = [pretrained[job.dataset, job.context.seed, model] for model in job.config.pretrained_models]
            task = _task.options(num_cpus=size["cpu"], num_gpus=size["gpu"], max_retries=MAX_RETRIES, name=job.name)
            away = replace(job, context=replace(job.context, output=job.context.output.resolve()))
            reference = task.remote(away, shared[job.dataset], device, Path.cwd(), board, *needs)
            running[reference] = job
            if job.is_pretrained:
                pretrained[job.dataset, job.context.seed, job.config.model] = reference
        return _follow(running, data, board, locks)


def _movable(part: Part) -> Part:
    """The same with a cache folder that does not depend on the working folder."""
    return replace(part, cache=None if part.cache is None else part.cache.resolve())


def _follow(running: dict[Any, RunJob], data: Mapping[str, tuple[Dataset, Split]], board: Any, locks: JobLocks) -> int:
    """Show how the rows stand until all are over; returns how many failed."""
    waiting, done, failed = dict(running), 0, 0
    with _view(len(running)) as show:
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=LOOK_EVERY_S)
            for reference in ready:
                job = waiting.pop(reference)
                try:
                    problem = ray.get(reference)
                except ray.exceptions.RayError as error:
                    problem = _lost(job, data, error)
                done += 1
                locks.release(job)
                failed += not report_outcome(job, problem)
            lines = ray.get(board.lines.remote())
            show(done, failed, {job.name: lines[job.name] for job in waiting.values() if job.name in lines})
    return failed


def _lost(job: RunJob, data: Mapping[str, tuple[Dataset, Split]], error: Exception) -> str:
    """What to say of a row whose task ended without an answer; its record says the same."""
    reason = (
        f"its Ray worker, or that of a row it reads, was lost {MAX_RETRIES + 1} times ({type(error).__name__}), most "
        "often for want of memory; the same command goes on from its last epoch"
        if isinstance(error, ray.exceptions.WorkerCrashedError | ray.exceptions.OutOfMemoryError)
        else take_last_line(error)
    )
    record_lost_run(job.config, *data[job.dataset], job.context, reason)
    return reason


@ray.remote
def _task(
    job: RunJob, data: tuple[Dataset, Split], device: str, folder: Path, board: Any, *needs: str | None
) -> str | None:
    """`run_job` in a worker's process, after the tasks whose results are `needs`."""
    enter_worker(folder, job.config.resources.ray_cpus)
    job = replace(job, context=replace(job.context, device=runtime.choose_device(device)))
    watcher = _ProgressReporter(board, job)
    try:
        return run_job(job, *data, watchers=[watcher])
    except HellmError as error:
        return str(error)


@ray.remote(num_cpus=0)
class _ProgressBoard:
    """How each row that runs stands."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}

    def say(self, name: str, text: str) -> None:
        """Keep a row's latest line."""
        self._lines[name] = text

    def lines(self) -> dict[str, str]:
        """Row -> its latest line."""
        return self._lines


class _ProgressReporter:
    """A logger that writes to the board."""

    def __init__(self, board: Any, job: RunJob) -> None:
        self._board, self._job = board, job
        board.say.remote(job.name, "begins")

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Epoch and step, in long epochs."""
        self._board.say.remote(self._job.name, f"epoch {epoch}/{self._job.config.train.epochs} step {step}/{n_steps}")

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Epoch and validation metric."""
        train = self._job.config.train
        valid = values.get(f"valid/{train.valid_metric}")
        text = f"epoch {epoch}/{train.epochs}" + ("" if valid is None else f" {train.valid_metric} {valid:.4f}")
        self._board.say.remote(self._job.name, text)

    def close(self) -> None:
        """Say that training is over."""
        self._board.say.remote(self._job.name, "ranking")


@contextmanager
def _view(total: int) -> Iterator[Any]:
    """A table that is drawn anew in a terminal, else a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total)
        return
    with rich.live.Live(console=console, transient=True) as live:

        def show(done: int, failed: int, lines: Mapping[str, str]) -> None:
            table = rich.table.Table(title=_head(total, done, failed, len(lines)), box=None)
            for name, text in lines.items():
                table.add_row(name, text)
            live.update(table)

        yield show


def _head(total: int, done: int, failed: int, running: int) -> str:
    return f"{done} of {total} rows over ({failed} failed), {running} running"


class _Lines:
    """Without a terminal: a line when a row is over, and now and then."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._said = total, -1, time.monotonic()

    def __call__(self, done: int, failed: int, lines: Mapping[str, str]) -> None:
        if done == self._done and time.monotonic() - self._said < LINE_EVERY_S:
            return
        self._done, self._said = done, time.monotonic()
        each = "; ".join(f"{name}: {text}" for name, text in lines.items())
        print(f"{_head(self._total, done, failed, len(lines))} {each}", file=sys.stderr, flush=True)
