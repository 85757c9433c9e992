"""Set up and run hyper-parameter searches and studies. tune.py and study.py share this module."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tabulate import tabulate

from baselines.registry import REGISTRY
from hellm_recbole.config.request import Override, SchedulerName, SearchBudget, SearchName
from hellm_recbole.config.search_space import Space
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.identity import identify_run, list_run_parts
from hellm_recbole.experiments.jobs import announce_removals
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.ray_cluster import connect_cluster, refuse_gpu_number
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.experiments.tuning import SearchTask, TrialJob, locate_search_of, needs_lock, run_search
from hellm_recbole.system.locks import FolderLock


def run_searches(tasks: Sequence[SearchTask], options: argparse.Namespace) -> Iterator[SearchResult]:
    """Run searches one after the other on one Ray cluster, and yield each result as soon as its search has finished.

    Raises:
        HellmError: there is no cluster at the address, or a search cannot be run or resumed.
    """
    folders = [locate_search_of(task, options.output) for task in tasks]
    with ExitStack() as stack:
        for task, folder in zip(tasks, folders, strict=True):
            if options.fresh or needs_lock(folder):
                stack.enter_context(
                    FolderLock(folder, f"search {task.name} of {task.base.label} on {task.job.dataset}")
                )
        if options.fresh:
            announce_removals(folders, options.output)
        stack.enter_context(connect_cluster(options.address, options.threads))
        for task in tasks:
            yield run_search(task, options.output, resume=options.resume, fresh=options.fresh)


def make_search_task(
    config: RunConfig,
    split: Split,
    space: Space,
    overrides: Sequence[Override],
    seed: int,
    *,
    budget: SearchBudget,
    scheduler: SchedulerName,
    search: SearchName,
    name: str,
    options: argparse.Namespace,
) -> SearchTask:
    """Set up the search of one run config. The input of the trials does not contain the test part.

    Args:
        config: run config.
        split: split of the dataset.
        space: values to try for each setting.
        overrides: settings that are the same in all trials.
        seed: random seed of all trials.
        budget: number of trials or minutes.
        scheduler: "asha" stops poor trials early, "none" does not.
        search: method that chooses the points.
        name: name of the search.
        options: options with output folder, preset and device.

    Raises:
        SettingsError: a value to try is not allowed for its setting, or the device has a number.
        ModelError: a pretrained model that the run reads has no usable result.
    """
    data = split.make_selection_data()
    refuse_gpu_number(options.device)
    pretrained = PretrainedStore().load(options.output, split, config.pretrained_models, seed)
    identity = identify_run(config, split, pretrained.identities)
    parts = list_run_parts(config, split, seed, identity)
    if identity["features"] or "modalities" in space:  # trials may read other modalities than the config does
        parts |= {f"features of {name}": digest for name, digest in split.feature_sha256.items()}
    cache = None if data.train.cache is None else data.train.cache.resolve()
    job = TrialJob(
        model=config.model,
        dataset=split.dataset,
        registry=REGISTRY,
        preset=options.preset,
        overrides=tuple(overrides),
        space=space,
        data=replace(data, train=replace(data.train, pretrained=pretrained.tables, cache=cache)),
        seed=seed,
        device=options.device,
        folder=Path.cwd(),
        run_parts=parts,
    )
    for key, values in space.items():
        for value in values:
            job.resolve({key: value})  # raises an error for an impossible value before the first trial
    return SearchTask(job, config, space, name, budget, scheduler, search, split.sha256, split.n_items)


def format_trials(result: SearchResult) -> str:
    """Format the trials of a search as a table, with the best trial first."""
    metric = result.valid_metric
    keys = list(result.space)
    order = sorted(result.trials, key=lambda trial: -trial["valid"].get(metric, 0.0))
    lines = [
        [
            trial["number"],
            *(trial["values"][key] for key in keys),
            f"{trial['valid'][metric]:.4f}" if trial["valid"] else "\u2013",
            trial["best_epoch"],
            trial["epochs"],
            trial["status"],
        ]
        for trial in order
    ]
    head = ["trial", *keys, metric, "best epoch", "epochs", "status"]
    table = tabulate(lines, head, tablefmt="github", disable_numparse=True)
    return (
        f"{result.row} on {result.dataset}, validation, {result.budget}, scheduler {result.scheduler}, "
        f"search {result.search}, seed {result.seed}"
        f"{'' if result.search == 'grid' else '; trial 1 has the values of the settings files'}\n{table}"
    )
