"""Run models on datasets and print the comparison tables: what run.py and ablate.py share."""

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
from hellm_recbole.config.search_space import can_be_searched
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.data.atomic import Dataset
from hellm_recbole.data.embeddings import EMBEDDINGS
from hellm_recbole.data.prepare import list_datasets
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, SettingsError
from hellm_recbole.experiments.dry_run import dry_run
from hellm_recbole.experiments.export import TEST_LISTS, count_left_out, refuse_embeddings
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
from hellm_recbole.experiments.run import RunContext, follow
from hellm_recbole.experiments.sweeps import locate_tuned, read_tuned
from hellm_recbole.models.base import LLM
from hellm_recbole.report.ablation import print_ablation
from hellm_recbole.report.slices import write_slices
from hellm_recbole.report.tables import write_tables
from hellm_recbole.system import runtime
from hellm_recbole.system.distributed import ProcessGroup, join_process_group, refuse_process_group
from hellm_recbole.system.files import ensure_folder, sweep_temporaries

Choose = Callable[[Sequence[str], str, Sequence[str]], list[str]]
ALL = (*RECBOLE_BASELINES, *REGISTRY)
EXIT_RUN_FAILED = 1


def run(options: argparse.Namespace, rest: Sequence[str], choose: Choose | None = None) -> int:
    """Run all rows of all datasets, print and write the tables; returns the exit code.

    Args:
        options: from `make_run_parser`.
        rest: arguments it did not know, settings in RecBole's form among them.
        choose: the rows of a dataset, from those asked for and its modalities; None takes those asked for.
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
        code = _follow(group)
    else:
        code = _lead(options, rest, choose, group)
        group.send(None)
    group.leave()
    return code


def _follow(group: ProcessGroup) -> int:
    try:
        follow(group)
    except HellmError as error:
        raise type(error)(f"process {group.rank}: {error}") from error
    return 0


def _lead(options: argparse.Namespace, rest: Sequence[str], choose: Choose | None, group: ProcessGroup) -> int:
    """All but what the other processes of a team do."""
    if group.size > 1:
        if options.ray is not None:
            refuse_process_group("--ray")
        if ":" in options.device:
            raise SettingsError(
                f"--device {options.device}: each of {group.size} processes has a GPU of its own; "
                "take auto, cpu or cuda"
            )
    device = runtime.choose_device(options.device)
    overrides = read_overrides(options, rest)
    seeds = parse_seeds(options.seeds)
    exports = parse_exports(options.export)
    export_k = parse_export_k(options.export_k, exports)
    models = list(ALL) if options.models == "all" else parse_names(options.models, "--models")
    names = parse_names(options.dataset, "--dataset")

    def planned(asked: Sequence[str], name: str, tuned: Mapping[str, Tuned] = NOTHING_TUNED) -> list[RunConfig]:
        return resolve_with_pretrained(asked, name, REGISTRY, options.preset, overrides, tuned)

    configs = {name: planned(models, name) for name in names}  # what is misspelt is refused before any data is read
    if EMBEDDINGS in exports:
        refuse_embeddings(config for name in names for config in configs[name])
    for config in (config for name in names for config in configs[name]):
        identify_code(config)  # as it was imported, whoever edits it while the runs go on
    ensure_folder(options.output)
    data = {name: load_data(name, options.data_path) for name in names}
    asked = dict.fromkeys(names, models)
    if choose is not None:
        asked = {name: choose(models, name, sorted(data[name][0].features)) for name in names}
        configs = {name: planned(asked[name], name) for name in names}
    tuned: dict[str, dict[str, Tuned]] = {name: {} for name in names}
    if options.tuned:
        for name in names:
            rows = [config for config in configs[name] if config.model in asked[name]]
            tuned[name] = _tuned(rows, options.output, data[name][1])
            configs[name] = planned(asked[name], name, tuned[name])
    contexts = [RunContext(options.output, seed, device, group) for seed in seeds]
    if options.dry_run:
        check, refused = LanguageModelCheck(here=options.ray is None), []
        for name in names:
            refused += dry_run(configs[name], data[name][1], contexts[0], check)
        if refused:
            raise refused[0]
        return 0
    jobs = [
        RunJob(
            config=config,
            context=context,
            # A stage that nobody named is kept, and so is the one beside a tuned row of the same model.
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

    def finish(name: str) -> None:
        sweep_temporaries(options.output / name)
        print(write_tables(options.output, name, options.protocol))
        print_ablation(options.output, name)
        write_slices(options.output, name)
        if TEST_LISTS in exports:
            print(count_left_out(*data[name]))
        print(f"written to {options.output / name}")

    with JobLocks() as locks:
        locks.acquire(jobs)
        jobs = [  # refuse before the first epoch, not after hours
            job if job.fresh or check_earlier_run(job, data[job.dataset][1]) else replace(job, deferred=True)
            for job in jobs
        ]
        _check_language_models(jobs, data, here=options.ray is None)
        announce_removals([job.folder for job in jobs if job.fresh], options.output)
        if options.ray is not None:
            failed = run_on_ray(jobs, data, options.ray, options.threads, options.device, locks)
            for name in names:
                finish(name)
        else:
            failed = 0
            for name in names:
                for job in jobs:
                    if job.dataset == name:
                        failed += not report_outcome(job, run_job(job, *data[name]))
                        locks.release(job)
                finish(name)
    return EXIT_RUN_FAILED if failed else 0


def _check_language_models(jobs: Sequence[RunJob], data: Mapping[str, tuple[Dataset, Split]], *, here: bool) -> None:
    """Refuse a language model that a run cannot use, before anything that the run reads is trained.

    Raises:
        HellmError: it says what is wrong with it.
    """
    check, checked = LanguageModelCheck(here=here), set()
    for job in jobs:
        split = data[job.dataset][1]
        if job.config.family != LLM or (job.config.label, job.dataset) in checked:
            continue
        if not needs_work(job):
            continue
        check_language_model(check, job.config, split)
        checked.add((job.config.label, job.dataset))


def _tuned(rows: Sequence[RunConfig], output: Path, split: Split) -> dict[str, Tuned]:
    """Model -> what tune.py has found for it; models without anything to search run as they are.

    Raises:
        SettingsError: a model could be searched and was not.
        ResultError: what was found is broken or of another split.
    """
    found = {}
    for config in rows:
        tuned = read_tuned(output, split.dataset, config.label, split.sha256)
        if tuned is not None:
            found[config.model] = tuned
        elif can_be_searched(split_variant(config.model, REGISTRY)[0]):
            raise SettingsError(
                f"--tuned: there is no {locate_tuned(output, split.dataset, config.label)}; run "
                f"`python benchmarks/tune.py --models {config.model} --dataset {split.dataset}` first"
            )
    return found
