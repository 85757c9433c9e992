"""Execute runs side by side on one machine: which run starts when, and on which device.

Each run has a process of its own (`run_process`), so that its memory is measured and freed with it, and a process that
is killed takes no other run with it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait

import psutil
import torch

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.data.embeddings import needs_export
from hellm_recbole.experiments.fitted_config import FittedRunConfig
from hellm_recbole.experiments.job_progress import open_view
from hellm_recbole.experiments.jobs import JobLocks, RunJob, report_outcome, run_job
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.row_memory import measure_free_bytes, predict_row_bytes
from hellm_recbole.experiments.run import record_lost_run
from hellm_recbole.experiments.run_process import Data, RunProcess

POLL_EVERY_S = 1.0
STOP_S = 20.0  # how long the processes get to end after Ctrl-C, before they are killed
GIB = 2**30
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Places:
    """How many runs are executed at once, and what each of them gets.

    Attributes:
        jobs: number of runs at once.
        threads: number of CPU threads of each run.
        gpus: devices of which each executes one run at a time; empty if all runs are on the CPU.
    """

    jobs: int
    threads: int
    gpus: tuple[torch.device, ...] = ()


def choose_places(jobs: Sequence[RunJob], wanted: int | None, threads: int | None, device: torch.device) -> Places:
    """Choose how many runs are executed at once. The threads of the command are shared out among them.

    Args:
        jobs: jobs of the command, compared with the runs in their folders.
        wanted: number of runs at once; None takes as many as there are threads.
        threads: number of threads of the command; None takes those of this process.
        device: device of the command.
    """
    n_threads = threads or torch.get_num_threads()
    gpus = list_gpus(device)
    to_do = [job for job in jobs if needs_process(job)]
    on_cpu = sum(not gpus or runs_on_cpu(job) for job in to_do)
    most = on_cpu + min(len(gpus), len(to_do) - on_cpu)
    n_jobs = max(min(wanted or n_threads, most), 1)
    return Places(n_jobs, max(n_threads // n_jobs, 1), gpus)


def list_gpus(device: torch.device) -> tuple[torch.device, ...]:
    """List the GPUs that a command uses: the one that it names, or all of the machine; none if it is the CPU."""
    if device.type == "cpu":
        return ()
    if str(device) != "cuda":  # a GPU with a number, or one of another kind
        return (device,)
    return tuple(torch.device("cuda", number) for number in range(max(torch.cuda.device_count(), 1)))


def runs_on_cpu(job: RunJob) -> bool:
    """Return whether a run leaves the GPUs to others: a model that is fitted, which is done on the CPU anyway."""
    return isinstance(job.config, FittedRunConfig)


def needs_process(job: RunJob) -> bool:
    """Return whether a job trains, ranks or exports anything, so that it gets a process of its own."""
    exports = bool(job.exports) or (job.is_pretrained and needs_export(job.folder / EMBEDDINGS))
    return job.finished is None or job.deferred or exports


def run_side_by_side(jobs: Sequence[RunJob], data: Mapping[str, Data], places: Places, locks: JobLocks) -> int:
    """Execute all runs, several at a time. Return the number of failed runs.

    A run starts when a place is free, the runs that it reads have ended, and the memory that it is expected to need
    is free; later runs may start before it. A run that fails, or whose process is killed, does not affect the others.

    Args:
        jobs: jobs of the command; each comes after the runs that it reads.
        data: dataset name -> dataset and its split.
        places: number of runs at once, and what each gets.
        locks: locks of the runs; each is released when its run has ended.

    Raises:
        KeyboardInterrupt: the command was stopped; all its processes have ended.
    """
    schedule = _Schedule(jobs, data, places, locks)
    try:
        with open_view(len(jobs)) as show:
            while schedule.is_open:
                schedule.start_runs()
                schedule.wait()
                show(schedule.n_done, schedule.n_failed, schedule.list_lines())
    finally:
        schedule.stop()
    return schedule.n_failed


class _Schedule:
    """The runs of a command that wait, are in progress or have ended; see `run_side_by_side` for the arguments."""

    def __init__(self, jobs: Sequence[RunJob], data: Mapping[str, Data], places: Places, locks: JobLocks) -> None:
        self._waiting = list(jobs)
        self._children: list[RunProcess] = []
        self._data, self._places, self._locks = data, places, locks
        self._titles = {job.name: f"{number}/{len(jobs)} {job.name}" for number, job in enumerate(jobs, start=1)}
        self._configs = {name: [job.config for job in jobs if job.dataset == name] for name in data}
        self._predicted: dict[str, int] = {}  # name of a job -> memory that it needs in bytes
        self._said: set[str] = set()  # names of jobs of which it was said that they wait for memory
        self.n_done = self.n_failed = 0

    @property
    def is_open(self) -> bool:
        """Whether a run waits or is in progress."""
        return bool(self._waiting or self._children)

    def list_lines(self) -> dict[str, str]:
        """List the latest line of each run in progress: title -> line."""
        return {self._titles[child.job.name]: child.line for child in self._children}

    def start_runs(self) -> None:
        """Start all runs that can start now."""
        for job in tuple(self._waiting):
            unfinished = {one.folder for one in (*self._waiting, *(child.job for child in self._children))}
            if not unfinished.isdisjoint((*job.pretrained_folders, *job.combined_folders)):
                continue
            if not needs_process(job):
                self._waiting.remove(job)
                self._end(job, run_job(job, *self._data[job.dataset], PretrainedStore()))
                continue
            device = self._find_device(job)
            if len(self._children) >= self._places.jobs or device is None or not self._has_memory(job):
                continue
            self._waiting.remove(job)
            context = replace(job.context, device=device, jobs=self._places.jobs)
            placed = replace(job, context=context)
            data = self._data[job.dataset]
            self._children.append(RunProcess(placed, data, self._places.threads, self._predicted.get(job.name, 0)))

    def wait(self) -> None:
        """Wait until a run says something, at most a short time, and note which runs have ended."""
        if self._children:
            wait([one for child in self._children for one in child.list_waitable()], POLL_EVERY_S)
        for child in tuple(self._children):
            if child.read_messages():
                self._children.remove(child)
                self._end(child.job, self._find_problem(child))

    def stop(self) -> None:
        """End all processes that still run: let them write what they have, and kill them after a while."""
        for child in self._children:
            child.process.terminate()
        deadline = time.monotonic() + STOP_S
        try:
            for child in self._children:
                child.process.join(max(deadline - time.monotonic(), 0.0))
        finally:
            for child in self._children:
                child.process.kill()
                child.process.join()

    def _end(self, job: RunJob, problem: str | None) -> None:
        self.n_done += 1
        self._locks.release(job)
        self.n_failed += not report_outcome(job, problem)

    def _find_problem(self, child: RunProcess) -> str | None:
        """Return the error of a run that has ended; write the record of one whose process could not."""
        if child.outcome is not None:
            return child.outcome[0]
        code = child.process.exitcode
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        memory = ", most often because memory ran out" if code == -9 else ""
        reason = f"its process {how}{memory}; the same command resumes from the last epoch"
        record_lost_run(child.job.config, *self._data[child.job.dataset], child.job.context, reason)
        return reason

    def _find_device(self, job: RunJob) -> torch.device | None:
        """Find the device of a run; None if all GPUs execute another one."""
        if not self._places.gpus:
            return job.context.device
        if runs_on_cpu(job):
            return _CPU
        taken = [child.job.context.device for child in self._children]
        return next((gpu for gpu in self._places.gpus if gpu not in taken), None)

    def _has_memory(self, job: RunJob) -> bool:
        """Return whether the memory of a run is free; otherwise say once that it waits. A run alone never waits."""
        if not self._children:
            return True
        if job.name not in self._predicted:
            row = predict_row_bytes(job, self._data[job.dataset][1], self._configs[job.dataset])
            self._predicted[job.name] = row + int(psutil.Process().memory_full_info().uss)  # data are copied
        claims = [(child.process.pid or 0, child.predicted_bytes) for child in self._children]
        needed, free = self._predicted[job.name], measure_free_bytes(claims)
        if needed > free and job.name not in self._said:
            self._said.add(job.name)
            sizes = f"it needs about {needed / GIB:.1f} GiB of memory, and {max(free, 0) / GIB:.1f} GiB are free"
            print(f"{job.name}: waits for other runs, because {sizes}", file=sys.stderr, flush=True)
        return needed <= free
