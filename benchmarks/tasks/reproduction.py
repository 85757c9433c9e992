"""Reproduce an experiment of the HeLLM paper: plan it, run what is missing, and make its table or figures.

Runs go through `comparison`, as those of run.py, and studies through `studies`, as those of study.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.tasks import comparison
from hellm_recbole.benchmarks.tasks.prepared_data import load_data, refuse_missing_data
from hellm_recbole.benchmarks.tasks.reproduction_plan import describe_work, find_stopped_runs, list_run_jobs, plan_runs
from hellm_recbole.benchmarks.tasks.reproduction_studies import reproduce_studies
from hellm_recbole.config.paper_experiments import Experiment, ExperimentRun
from hellm_recbole.config.properties_files import read_file
from hellm_recbole.config.request import RunRequest
from hellm_recbole.data.known_datasets import DATASET_ROOT, list_datasets
from hellm_recbole.data.manifest import MANIFEST, read_manifest
from hellm_recbole.errors import ResultError, SettingsError
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.results import find_results
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.models.base import LLM
from hellm_recbole.report.dataset_statistics import (
    count_dataset,
    render_statistics_csv,
    render_statistics_markdown,
    render_statistics_terminal,
)
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.reproduction import FOLDER, build_paired_table
from hellm_recbole.report.reproduction_rendering import (
    render_paired_csv,
    render_paired_markdown,
    render_paired_terminal,
)
from hellm_recbole.system.files import ensure_folder, remove_leftovers, write_text


def reproduce(
    experiment: Experiment, request: RunRequest, studies: str | None, *, plan_only: bool, only_finished: bool
) -> int:
    """Reproduce an experiment and return the exit code: 0, or 1 if a run failed.

    Args:
        experiment: the experiment.
        request: what the command was asked for; without datasets, those of the experiment are taken.
        studies: value of `--studies`; None takes all studies of the experiment.
        plan_only: whether to print the plan and nothing else.
        only_finished: whether to make the table or figures of what is there.

    Raises:
        HellmError: an option, a dataset or a setting is wrong, or an earlier run cannot be kept.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise SettingsError(
            "hellm-recbole reproduce runs in one process; train the LLM models with `accelerate launch -m "
            "hellm_recbole.benchmarks.run`, and this command then keeps these runs"
        )
    if plan_only and only_finished:
        raise SettingsError("--plan prints what would run, and --only-finished runs nothing; give one of them")
    if studies is not None and experiment.kind != "studies":
        raise SettingsError(f"--studies chooses studies of a figure, and {experiment.name} has none")
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    request = replace(request, datasets=request.datasets or experiment.datasets)
    if not only_finished:
        refuse_missing_data(request.datasets, request.data_path, may_download=request.may_download)
    if experiment.kind == "statistics":
        return _reproduce_statistics(experiment, request, plan_only=plan_only)
    if experiment.kind == "studies":
        return reproduce_studies(experiment, request, studies, plan_only=plan_only, only_finished=only_finished)
    return _reproduce_runs(experiment, request, plan_only=plan_only, only_finished=only_finished)


@dataclass(frozen=True)
class _ChosenRuns:
    """The rows of an experiment that a dataset can have.

    Attributes:
        rows: the rows.
        labels: name of a run -> its label, which includes the language model.
        notes: sentences about rows that are left out.
    """

    rows: tuple[ExperimentRun, ...]
    labels: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def models(self) -> list[str]:
        """Names of the runs."""
        return [row.run for row in self.rows]


def _reproduce_runs(experiment: Experiment, request: RunRequest, *, plan_only: bool, only_finished: bool) -> int:
    """Plan and execute the runs of a table, and make the table of each dataset. Return the exit code."""
    resolvers = {name: Resolver(name, load_registry(), request.preset, request.overrides) for name in request.datasets}
    chosen = {name: _choose_rows(experiment, resolver) for name, resolver in resolvers.items()}
    for name, resolver in resolvers.items():
        jobs = list_run_jobs(resolver, chosen[name].models, request)  # refuses wrong settings
        if plan_only or not only_finished:
            planned = plan_runs(jobs, chosen[name].models, in_this_process=request.ray is None)
            title = f"{experiment.name} of the HeLLM paper on {name}: {experiment.title}"
            print(describe_work(title, planned, "run"), *chosen[name].notes, sep="\n", flush=True)
    if plan_only:
        return 0
    code = 0
    if not only_finished:

        def select_rows(_models: Sequence[str], dataset: str, _modalities: Sequence[str]) -> list[str]:
            return chosen[dataset].models

        models = dict.fromkeys(model for rows in chosen.values() for model in rows.models)
        code = comparison.run(replace(request, models=tuple(models)), select_rows, quiet=True)
    for name, rows in chosen.items():
        print(_write_table(experiment, rows, request, name))
    return code


def _choose_rows(experiment: Experiment, resolver: Resolver) -> _ChosenRuns:
    """Choose the rows of a table that a dataset can have: without item texts, there are no rows of language models.

    Raises:
        HellmError: a run of the experiment is unknown, or a setting is wrong.
    """
    configs = {row.run: resolver.resolve(row.run) for row in experiment.rows}
    labels = {name: config.label for name, config in configs.items()}
    left_out = [name for name, config in configs.items() if config.family == LLM]
    if not left_out or _has_item_texts(resolver.dataset):
        return _ChosenRuns(experiment.rows, labels, ())
    _refuse_settings_of_left_out_rows(experiment, resolver, configs, left_out)
    rows, section = [], None
    for row in experiment.rows:
        section = row.section or section
        if row.run not in left_out:
            rows.append(replace(row, section=section))
            section = None
    note = (
        f"{resolver.dataset} has no item texts, so the {len(left_out)} rows of language models are left out; "
        f"hellm-recbole run --models {left_out[0]} --dataset {resolver.dataset} trains one on the items' embeddings "
        "alone."
    )
    return _ChosenRuns(tuple(rows), labels, (note,))


def _refuse_settings_of_left_out_rows(
    experiment: Experiment, resolver: Resolver, configs: Mapping[str, RunConfig], left_out: Sequence[str]
) -> None:
    """Refuse a setting of the command line that only rows without item texts would read.

    Raises:
        SettingsError: there is such a setting.
    """
    for override in resolver.overrides:
        key, origin = override.key, override.origin
        readers = [name for name, config in configs.items() if config.resolved.origin.get(key) == origin]
        if readers and set(readers) <= set(left_out):
            raise SettingsError(
                f"{origin}: {resolver.dataset} has no item texts, so no row of {experiment.name} there reads "
                "this setting; leave it out, or give each dataset a command of its own"
            )


def _has_item_texts(dataset: str) -> bool:
    """Return whether a dataset has item texts: as prepared, or else as its settings file says."""
    if (DATASET_ROOT / dataset / MANIFEST).exists():
        return bool(read_manifest(DATASET_ROOT / dataset).text)
    if dataset not in list_datasets():
        return True
    return bool(read_file("dataset", dataset).get("text", True))


def _write_table(experiment: Experiment, chosen: _ChosenRuns, request: RunRequest, dataset: str) -> str:
    """Write the table of one dataset, and return it as text for the terminal.

    Raises:
        ResultError: no run of the experiment has ended, or runs cannot be compared.
        OutputError: a file cannot be written.
    """
    table = None
    if find_results(request.output, dataset):
        frame = read_frame(request.output, dataset)
        stopped = find_stopped_runs(request.output, dataset, chosen.labels.values())
        table = build_paired_table(
            experiment, chosen.rows, chosen.labels, frame, request.preset, chosen.notes, stopped=stopped
        )
    if table is None:
        raise ResultError(
            f"{request.output / dataset} has no run of {experiment.name} with preset {request.preset} that has "
            "ended; without --only-finished the command runs them"
        )
    folder = ensure_folder(request.output / dataset / FOLDER)
    remove_leftovers(folder)
    write_text(folder / f"{experiment.name}.md", render_paired_markdown(table))
    write_text(folder / f"{experiment.name}.csv", render_paired_csv(table))
    return f"{render_paired_terminal(table)}\nwritten to {folder / experiment.name}.md and .csv"


def _reproduce_statistics(experiment: Experiment, request: RunRequest, *, plan_only: bool) -> int:
    """Write and print the statistics of the datasets; without names, of all that are prepared. Return the exit code.

    Raises:
        SettingsError: no dataset is named, and none is prepared.
    """
    names = request.datasets or tuple(sorted(path.parent.name for path in DATASET_ROOT.glob(f"*/{MANIFEST}")))
    if not names:
        raise SettingsError("no dataset is prepared; name those to count, for example --dataset Beauty,Toys")
    print(f"{experiment.name} of the HeLLM paper: {experiment.title}; nothing is trained; datasets {', '.join(names)}")
    if plan_only:
        return 0
    counted = []
    for name in names:
        dataset, split = load_data(name, request.data_path, modalities=(), may_download=request.may_download)
        counted.append(count_dataset(split, dataset.paper))
    absent = [dataset.name for dataset in counted if dataset.paper is None]
    notes = [*experiment.notes, *([f"The paper has no numbers for {', '.join(absent)}."] if absent else [])]
    folder = ensure_folder(request.output / FOLDER)
    write_text(folder / f"{experiment.name}.md", render_statistics_markdown(experiment.title, counted, notes))
    write_text(folder / f"{experiment.name}.csv", render_statistics_csv(counted))
    print(render_statistics_terminal(experiment.title, counted, notes))
    print(f"written to {folder / experiment.name}.md and .csv")
    return 0
