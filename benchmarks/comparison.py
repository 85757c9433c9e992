"""Run models on datasets and print the comparison tables. run.py and ablate.py share this module."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from baselines.registry import RECBOLE_BASELINES, REGISTRY
from benchmarks.options import (
    check_threads,
    load_data,
    parse_export_k,
    parse_exports,
    parse_names,
    parse_seeds,
    read_overrides,
)
from hellm_recbole.config.request import EMBEDDINGS, TEST_LISTS
from hellm_recbole.config.search_space import can_be_searched
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.known_datasets import list_datasets
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, SettingsError
from hellm_recbole.experiments.dry_run import dry_run
from hellm_recbole.experiments.export import describe_left_out, refuse_embeddings
from hellm_recbole.experiments.identity import identify_code
from hellm_recbole.experiments.jobs import (
    JobLocks,
    RunJob,
    announce_removals,
    check_earlier_run,
    check_language_model,
    needs_work,
    report_outcome,
    run_job,
)
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.ray_jobs import run_on_ray
from hellm_recbole.experiments.resolve import (
    NOTHING_TUNED,
    RunConfig,
    Tuned,
    is_pretrained_model,
    list_presets,
    resolve_with_pretrained,
    split_variant,
)
from hellm_recbole.experiments.run import RunContext, follow_main_process
from hellm_recbole.experiments.sweeps import locate_tuned, read_tuned
from hellm_recbole.models.base import LLM
from hellm_recbole.report.files import write_reports
from hellm_recbole.system import runtime
from hellm_recbole.system.distributed import ProcessGroup, join_process_group, refuse_process_group
from hellm_recbole.system.files import ensure_folder, remove_leftovers

ModelSelector = Callable[[Sequence[str], str, Sequence[str]], list[str]]  # (models, dataset, modalities) -> models
ALL = (*RECBOLE_BASELINES, *REGISTRY)
EXIT_RUN_FAILED = 1


def run(options: argparse.Namespace, rest: Sequence[str], select_models: ModelSelector | None = None) -> int:
    """Run all models on all datasets, print and write the tables, and return the exit code.

    Args:
        options: options of `make_run_parser`.
        rest: arguments that the parser did not know, such as settings in RecBole's form.
        select_models: function that returns the models to run on a dataset, given the requested models, the name of the
            dataset and its modalities. None runs the requested models.
    """
    if options.list:
        print(f"models    {', '.join(ALL)}")
        print("          and any general or sequential model of RecBole")
        print(f"variants  {', '.join(list_all_variants())}")
        print(f"datasets  {', '.join(list_datasets())}")
        print(f"presets   {', '.join(list_presets())}")
        return 0
    runtime.keep_freed_memory()
    if options.threads is not None:
        check_threads(options.threads)
        torch.set_num_threads(options.threads)
    group = join_process_group()
    if group.rank:
        code = _run_worker_process(group)
    else:
        code = _run_main_process(options, rest, select_models, group)
        group.send(None)
    group.leave()
    return code


def _run_worker_process(group: ProcessGroup) -> int:
    """Train and evaluate together with the main process until it sends the end.

    Raises:
        HellmError: the work failed; the message names the process.
    """
    try:
        follow_main_process(group)
    except HellmError as error:
        raise type(error)(f"process {group.rank}: {error}") from error
    return 0


def _run_main_process(
    options: argparse.Namespace, rest: Sequence[str], select_models: ModelSelector | None, group: ProcessGroup
) -> int:
    """Read the options and the data, run the models, write the tables, and return the exit code.

    Only the process of rank 0 does this. The other processes of a distributed run execute `_run_worker_process`.
    """
    if group.size > 1:
        if options.ray is not None:
            refuse_process_group("--ray")
        if ":" in options.device:
            raise SettingsError(
                f"--device {options.device} names one device, but each of the {group.size} processes uses its own GPU; "
                "use auto, cpu or cuda"
            )
    device = runtime.choose_device(options.device)
    overrides = read_overrides(options, rest)
    seeds = parse_seeds(options.seeds)
    exports = parse_exports(options.export)
    export_k = parse_export_k(options.export_k, exports)
    models = list(ALL) if options.models == "all" else parse_names(options.models, "--models")
    names = parse_names(options.dataset, "--dataset")

    def resolve_configs(
        selected: Sequence[str], name: str, tuned: Mapping[str, Tuned] = NOTHING_TUNED
    ) -> list[RunConfig]:
        return resolve_with_pretrained(selected, name, REGISTRY, options.preset, overrides, tuned)

    # Misspelled names and settings are refused here, before any data is read.
    configs = {name: resolve_configs(models, name) for name in names}
    if EMBEDDINGS in exports:
        refuse_embeddings(config for name in names for config in configs[name])
    for config in (config for name in names for config in configs[name]):
        identify_code(config)  # now, because files may be edited while the runs are in progress
    ensure_folder(options.output)
    data = {name: load_data(name, options.data_path) for name in names}
    selected = dict.fromkeys(names, models)
    if select_models is not None:
        selected = {name: select_models(models, name, sorted(data[name][0].features)) for name in names}
        configs = {name: resolve_configs(selected[name], name) for name in names}
    tuned: dict[str, dict[str, Tuned]] = {name: {} for name in names}
    if options.tuned:
        for name in names:
            to_tune = [config for config in configs[name] if config.model in selected[name]]
            tuned[name] = _read_tuned_values(to_tune, options.output, data[name][1])
            configs[name] = resolve_configs(selected[name], name, tuned[name])
    contexts = [RunContext(options.output, seed, device, group) for seed in seeds]
    if options.dry_run:
        check, errors = LanguageModelCheck(trains_here=options.ray is None), []
        for name in names:
            errors += dry_run(configs[name], data[name][1], contexts[0], check)
        if errors:
            raise errors[0]
        return 0
    jobs = [
        RunJob(
            config=config,
            context=context,
            # --fresh reruns only the models named on the command line. Two kinds of runs stay: a pretrained model that
            # is not named, and the run with default values of a model that is named with tuned values.
            fresh=bool(options.fresh)
            and config.model in models
            and (config.search is None) == (config.model not in tuned[name]),
            exports=tuple(exports),
            export_k=export_k,
            is_pretrained=is_pretrained_model(config, configs[name]),
            dataset=name,
        )
        for name in names
        for context in contexts
        for config in configs[name]
    ]

    def write_results(name: str) -> None:
        remove_leftovers(options.output / name)
        print(write_reports(options.output, name, options.protocol))
        if TEST_LISTS in exports:
            print(describe_left_out(*data[name]))
        print(f"written to {options.output / name}")

    with JobLocks() as locks:
        locks.acquire(jobs)
        jobs = [  # raises errors before the first epoch, not after hours of training
            job if job.fresh or check_earlier_run(job, data[job.dataset][1]) else replace(job, deferred=True)
            for job in jobs
        ]
        _check_language_models(jobs, data, trains_here=options.ray is None)
        announce_removals([job.folder for job in jobs if job.fresh], options.output)
        if options.ray is not None:
            failed = run_on_ray(jobs, data, options.ray, options.threads, options.device, locks)
            for name in names:
                write_results(name)
        else:
            failed = 0
            for name in names:
                for job in jobs:
                    if job.dataset == name:
                        failed += not report_outcome(job, run_job(job, *data[name]))
                        locks.release(job)
                write_results(name)
    return EXIT_RUN_FAILED if failed else 0


def _check_language_models(
    jobs: Sequence[RunJob], data: Mapping[str, tuple[Dataset, Split]], *, trains_here: bool
) -> None:
    """Refuse a language model that a run cannot use, before the pretrained models of the run are trained.

    Raises:
        HellmError: a language model cannot be used; the message says why.
    """
    check, checked = LanguageModelCheck(trains_here=trains_here), set()
    for job in jobs:
        split = data[job.dataset][1]
        if job.config.family != LLM or (job.config.label, job.dataset) in checked:
            continue
        if not needs_work(job):
            continue
        check_language_model(check, job.config, split)
        checked.add((job.config.label, job.dataset))


def _read_tuned_values(configs: Sequence[RunConfig], output: Path, split: Split) -> dict[str, Tuned]:
    """Read the best values that tune.py found for each model. Models without a search space have none.

    Raises:
        SettingsError: a model has a search space, but there was no search.
        ResultError: a file of values is damaged, or its values were found on another split.
    """
    found = {}
    for config in configs:
        tuned = read_tuned(output, split.dataset, config.label, split.sha256)
        if tuned is not None:
            found[config.model] = tuned
        elif can_be_searched(split_variant(config.model, REGISTRY)[0]):
            raise SettingsError(
                f"--tuned needs {locate_tuned(output, split.dataset, config.label)}, which does not exist; run "
                f"`python benchmarks/tune.py --models {config.model} --dataset {split.dataset}` first"
            )
    return found
