"""Execute the runs of a comparison, on Ray, side by side or one after another, and report each dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hellm_recbole.config.request import TEST_LISTS, RunRequest
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.export import describe_left_out
from hellm_recbole.experiments.jobs import JobLocks, RunJob, execute_jobs
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.ray_jobs import RayRequest, run_on_ray
from hellm_recbole.experiments.side_by_side import Places, needs_process, run_side_by_side
from hellm_recbole.experiments.stored_work import StoredWork
from hellm_recbole.report.files import write_reports
from hellm_recbole.report.page_writing import is_page_current
from hellm_recbole.report.table_request import TableRequest
from hellm_recbole.system.files import remove_leftovers


def execute_and_report(
    request: RunRequest,
    jobs: Sequence[RunJob],
    data: Mapping[str, tuple[Dataset, Split]],
    resources: tuple[PretrainedStore, JobLocks, Places, StoredWork],
    *,
    quiet: bool,
) -> int:
    """Execute the jobs and report each dataset, as soon as its runs have ended if they are executed one after another.

    Args:
        request: what to run.
        jobs: jobs of the command, compared with the runs in their folders.
        data: dataset name -> dataset and its split.
        resources: pretrained embeddings that the command has loaded, locks of the runs, how many runs are executed at
            once, and the storage of the command.
        quiet: whether to write the tables only, without the page, and to print nothing.

    Returns:
        The number of failed runs.
    """
    store, locks, places, stored = resources
    executed = {job.dataset for job in jobs if needs_process(job)}
    if request.ray is not None or places.jobs > 1:
        store.clear()  # each worker loads what its runs read
        if request.ray is not None:
            cluster = RayRequest(request.ray, request.threads, request.device)
            failed = run_on_ray(jobs, data, cluster, locks, stored if stored.is_used else None)
        else:
            failed = run_side_by_side(jobs, data, places, locks)
        for name in request.datasets:
            _report(request, name, data[name], quiet=quiet, changed=name in executed)
        return failed
    failed = 0
    for name in request.datasets:
        failed += execute_jobs([job for job in jobs if job.dataset == name], data[name], store, locks)
        _report(request, name, data[name], quiet=quiet, changed=name in executed)
    return failed


def _report(request: RunRequest, name: str, data: tuple[Dataset, Split], *, quiet: bool, changed: bool) -> None:
    """Write the tables of a dataset; unless this is `quiet`, print them and write its page, too.

    Args:
        request: what was run.
        name: name of the dataset.
        data: the dataset and its split.
        quiet: whether to write the tables only.
        changed: whether the command has executed a run on the dataset. If not, a page that this version has made of
            the same records stays as it is.
    """
    folder = request.output / name
    remove_leftovers(folder)
    tables = write_reports(
        request.output,
        name,
        request.protocol,
        TableRequest(request.mask),
        quick_page=not quiet and (changed or not is_page_current(folder)),
        timings=request.timings,
    )
    if quiet:
        return
    print(tables)
    if TEST_LISTS in request.exports:
        print(describe_left_out(*data))
    print(f"written to {folder}")
