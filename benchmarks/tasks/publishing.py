"""Publish and check runs for publish.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.tasks.prepared_data import load_data
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ModelError, ResultError, SettingsError
from hellm_recbole.experiments.earlier_names import RECBOLE_PREFIX, RENAMED, name_as_today
from hellm_recbole.experiments.published import (
    SETTINGS_FILE,
    PublishedRun,
    get_folder,
    is_same_run,
    list_published_folders,
    name_run,
    prepare_publication,
    read_published_folder,
    read_published_result,
    remove_publication_leftovers,
    write_publication,
)
from hellm_recbole.experiments.published_check import check_published_run
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, check_comparable, find_results
from hellm_recbole.models.base import Family
from hellm_recbole.report.groups import group_runs

EXIT_DISAGREES = 1
_KB = 1000


def publish_runs(
    output: Path, folder: Path, datasets: Sequence[str], models: Sequence[str] | None, *, fresh: bool
) -> None:
    """Copy finished runs in the published form, and print a line for each run.

    All runs of a dataset are read and compared before the first is written.

    Args:
        output: folder of the results.
        folder: folder of the published runs.
        datasets: names of the datasets.
        models: models or labels of runs; None publishes the finished runs of all models.
        fresh: whether to replace published runs that differ.

    Raises:
        SettingsError: both folders are the same, or the published runs would be among the runs of a dataset.
        ModelError: a model has no run.
        ResultError: there is no finished run, a run is broken, or a different run is published already.
        OutputError: a file cannot be written.
    """
    _refuse_folder(folder, output, datasets)
    for dataset in datasets:
        results, started = _leave_out_external(find_results(output, dataset)), _list_unfinished(output, dataset)
        labels = [*(result.label for result in results), *(label for label, _ in started)]
        chosen = _select_labels(labels, models, f"run of {dataset} in {output}")
        results = [result for result in results if result.label in chosen]
        for label, seed in started:
            if label in chosen:
                print(f"{dataset} {label} {seed}: not finished, left out")
        for result in results:
            if result.status != "success":
                print(f"{dataset} {name_run(result)}: {result.status}, left out")
        finished = [result for result in results if result.status == "success"]
        if not finished:
            raise ResultError(f"no run of {dataset} in {output} is finished; only finished runs can be published")
        remove_publication_leftovers(folder, dataset)
        _publish_dataset([prepare_publication(result) for result in finished], folder, dataset, fresh)


def _leave_out_external(results: Sequence[RunResult]) -> list[RunResult]:
    """Leave out the rows of other systems, and print a line for each: nobody can run them again."""
    for result in results:
        if result.external is not None:
            print(f"{result.dataset} {result.label}: external, left out")
    return [result for result in results if result.external is None]


def _refuse_folder(folder: Path, output: Path, datasets: Sequence[str]) -> None:
    """Refuse a folder for published runs that is the folder of the results, or is inside that of a dataset in it.

    Raises:
        SettingsError: it is one.
    """
    target, results = folder.resolve(), output.resolve()
    if target == results:
        raise SettingsError(f"--to {folder} is the folder of the results; choose another one for published runs")
    if not target.is_relative_to(results):
        return
    name = target.relative_to(results).parts[0]
    if name in datasets or any(any((results / name).glob(f"*/*/{file}")) for file in (SETTINGS_FILE, RECORD_FILE)):
        raise SettingsError(
            f"--to {folder} is inside {output / name}, the results of a dataset; choose another one for published runs"
        )


def _list_unfinished(output: Path, dataset: str) -> list[tuple[str, str]]:
    """List (label, seed) of the runs that have started and have no result yet."""
    folders = (path.parent for path in sorted((output / dataset).glob(f"*/*/{SETTINGS_FILE}")))
    return [(path.parent.name, path.name) for path in folders if not (path / RECORD_FILE).exists()]


def _publish_dataset(runs: Sequence[PublishedRun], folder: Path, dataset: str, fresh: bool) -> None:
    """Write the runs of a dataset that are not published yet, and print a line for each run."""
    published = {path: None if fresh else _refuse_different(run, path) for run, path in _locate(runs, folder)}
    others = [path for path in list_published_folders(folder, dataset) if path not in published]
    together = [*(read_published_result(path) for path in others), *(run.result for run in runs)]
    check_comparable(together)
    group_runs(together)  # seeds of one row must have read the same data, or no report could be made of them
    for run, path in _locate(runs, folder):
        said = "published before, kept" if published[path] else _describe(write_publication(run, folder))
        print(f"{dataset} {name_run(run.result)}: {said}")
    total = sum(read_published_folder(path).n_bytes for path in list_published_folders(folder, dataset))
    print(f"{dataset}: {total / _KB:,.0f} kB of published runs in {folder / dataset}")


def _locate(runs: Sequence[PublishedRun], folder: Path) -> list[tuple[PublishedRun, Path]]:
    """Return each run with the folder of its published form."""
    return [(run, folder / run.result.dataset / run.result.label / str(run.result.seed)) for run in runs]


def _refuse_different(run: PublishedRun, path: Path) -> PublishedRun | None:
    """Return the published run in a folder if it equals this run; None if there is none.

    Raises:
        ResultError: a different run is published there, or a broken one.
    """
    if not path.is_dir():
        return None
    published = read_published_folder(path)
    if is_same_run(run, published):
        return published
    raise ResultError(
        f"{path} has another run of {name_run(run.result)} than {get_folder(run.result)}; publish with --fresh to "
        "replace it"
    )


def check_runs(
    folder: Path,
    datasets: Sequence[str],
    models: Sequence[str] | None,
    data_path: Path | None,
    *,
    may_download: bool = True,
) -> int:
    """Check published runs against the prepared datasets, print a line for each run, and return the exit code.

    Args:
        folder: folder of the published runs.
        datasets: names of the datasets.
        models: models or labels of runs; None checks all runs.
        data_path: folder with the source files of datasets that are not prepared, or None.
        may_download: whether raw files of such a dataset may be downloaded.

    Raises:
        ModelError: a model has no published run.
        ResultError: there is no published run.
        DataError: a dataset cannot be loaded.
    """
    chosen: dict[str, list[Path]] = {}
    for dataset in datasets:
        paths = list_published_folders(folder, dataset)
        labels = _select_labels([path.parent.name for path in paths], models, f"published run of {dataset} in {folder}")
        chosen[dataset] = [path for path in paths if path.parent.name in labels]
    agrees = True
    for dataset, paths in chosen.items():
        _, split = load_data(dataset, data_path, modalities=(), may_download=may_download)
        for path in paths:
            problems = _find_problems(path, split)
            print(f"{dataset} {path.parent.name} {path.name}: {'; '.join(problems) or 'agrees'}", flush=True)
            agrees = agrees and not problems
    return 0 if agrees else EXIT_DISAGREES


def _find_problems(path: Path, split: Split) -> list[str]:
    """Find what is wrong with a published run. A broken file is a problem, so that the other runs are checked, too."""
    try:
        run = read_published_folder(path)
        return check_published_run(run, split, _find_kind(name_as_today(run.result).model))
    except ResultError as error:
        return [str(error)]


def _find_kind(model: str) -> tuple[Family, str] | None:
    """Find the family and the source of a model or variant of the registry; None for other models."""
    name = list_all_variants().get(model, model)
    if name in load_registry():
        return load_registry()[name].family, "hellm_recbole"
    is_renamed = name.startswith(RECBOLE_PREFIX) and name.removeprefix(RECBOLE_PREFIX) in RENAMED
    return ("collaborative", "recbole") if is_renamed else None


def _select_labels(labels: Sequence[str], models: Sequence[str] | None, what: str) -> set[str]:
    """Select the labels of some models.

    Args:
        labels: labels of all runs.
        models: models or labels; None selects all.
        what: what is selected, for messages.

    Raises:
        ModelError: a model has no run.
        ResultError: there is no run.
    """
    if not labels:
        raise ResultError(f"no {what}; check the names of the dataset and of the folder")
    names = {label: {label, re.sub(r"(-tuned)?(@.*)?$", "", label)} for label in labels}
    for model in models or ():
        if not any(model in known for known in names.values()):
            raise ModelError(f"{model} is no {what}; there are {', '.join(names)}")
    return {label for label in labels if models is None or names[label] & {*models}}


def _describe(run: PublishedRun) -> str:
    """Describe a run that was published: its size and the keys whose texts held a path."""
    published = run.result.published
    assert published is not None
    cut = f"; paths cut in {', '.join(published['cut'])}" if published["cut"] else ""
    return f"published, {run.n_bytes / _KB:,.0f} kB{cut}"
