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
    load,
    named,
    overrides_of,
    parse_export_k,
    parse_exports,
    seeds_of,
)
from hellm_recbole.config.search_space import can_be_searched
from hellm_recbole.config.variants import all_variants
from hellm_recbole.data.atomic import Dataset
from hellm_recbole.data.embeddings import EMBEDDINGS
from hellm_recbole.data.prepare import known_datasets
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, SettingsError
from hellm_recbole.experiments.dry_run import dry_run
from hellm_recbole.experiments.export import TEST_LISTS, count_left_out, refuse_embeddings
from hellm_recbole.experiments.identity import identify_code
from hellm_recbole.experiments.jobs import (
    JobLocks,
    RowJob,
    announce_removals,
    check_earlier,
    check_language_model,
    needs_work,
    run_job,
    told,
)
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.ray_jobs import run_on_ray
from hellm_recbole.experiments.resolve import (
    NOTHING_TUNED,
    RowPlan,
    Tuned,
    is_stage,
    plan_with_stages,
    presets,
    split_variant,
)
from hellm_recbole.experiments.run import Place, follow
from hellm_recbole.experiments.sweeps import read_tuned, tuned_file
from hellm_recbole.models.base import LLM
from hellm_recbole.report.ablation import print_ablation
from hellm_recbole.report.slices import write_slices
from hellm_recbole.report.tables import write_tables
from hellm_recbole.system import runtime
from hellm_recbole.system.distributed import Team, join_team, refuse_team
from hellm_recbole.system.files import ensure_folder, sweep_temporaries

Choose = Callable[[Sequence[str], str, Sequence[str]], list[str]]
ALL = (*RECBOLE_BASELINES, *REGISTRY)
EXIT_ROW_FAILED = 1


def run(options: argparse.Namespace, rest: Sequence[str], choose: Choose | None = None) -> int:
    """Run all rows of all datasets, print and write the tables; returns the exit code.

    Args:
        options: from `argument_parser`.
        rest: arguments it did not know, settings in RecBole's form among them.
        choose: the rows of a dataset, from those asked for and its modalities; None takes those asked for.
    """
    if options.list:
        print(f"models    {', '.join(ALL)}")
        print("          and any general or sequential model of RecBole")
        print(f"variants  {', '.join(all_variants())}")
        print(f"datasets  {', '.join(known_datasets())}")
        print(f"presets   {', '.join(presets())}")
        return 0
    runtime.keep_freed_memory()
    if options.threads is not None:
        check_threads(options.threads)
        torch.set_num_threads(options.threads)
    team = join_team()
    if team.rank:
        code = _follow(team)
    else:
        code = _lead(options, rest, choose, team)
        team.send(None)
    team.leave()
    return code


def _follow(team: Team) -> int:
    try:
        follow(team)
    except HellmError as error:
        raise type(error)(f"process {team.rank}: {error}") from error
    return 0


def _lead(options: argparse.Namespace, rest: Sequence[str], choose: Choose | None, team: Team) -> int:
    """All but what the other processes of a team do."""
    if team.size > 1:
        if options.ray is not None:
            refuse_team("--ray")
        if ":" in options.device:
            raise SettingsError(
                f"--device {options.device}: each of {team.size} processes has a GPU of its own; take auto, cpu or cuda"
            )
    device = runtime.choose_device(options.device)
    overrides = overrides_of(options, rest)
    seeds = seeds_of(options.seeds)
    exports = parse_exports(options.export)
    export_k = parse_export_k(options.export_k, exports)
    models = list(ALL) if options.models == "all" else named(options.models, "--models")
    names = named(options.dataset, "--dataset")

    def planned(asked: Sequence[str], name: str, tuned: Mapping[str, Tuned] = NOTHING_TUNED) -> list[RowPlan]:
        return plan_with_stages(asked, name, REGISTRY, options.preset, overrides, tuned)

    plans = {name: planned(models, name) for name in names}  # what is misspelt is refused before any data is read
    if EMBEDDINGS in exports:
        refuse_embeddings(plan for name in names for plan in plans[name])
    for plan in (plan for name in names for plan in plans[name]):
        identify_code(plan)  # as it was imported, whoever edits it while the runs go on
    ensure_folder(options.output)
    data = {name: load(name, options.data_path) for name in names}
    asked = dict.fromkeys(names, models)
    if choose is not None:
        asked = {name: choose(models, name, sorted(data[name][0].features)) for name in names}
        plans = {name: planned(asked[name], name) for name in names}
    tuned: dict[str, dict[str, Tuned]] = {name: {} for name in names}
    if options.tuned:
        for name in names:
            rows = [plan for plan in plans[name] if plan.model in asked[name]]
            tuned[name] = _tuned(rows, options.output, data[name][1])
            plans[name] = planned(asked[name], name, tuned[name])
    places = [Place(options.output, seed, device, team) for seed in seeds]
    if options.dry_run:
        check, refused = LanguageModelCheck(here=options.ray is None), []
        for name in names:
            refused += dry_run(plans[name], data[name][1], places[0], check)
        if refused:
            raise refused[0]
        return 0
    jobs = [
        RowJob(
            plan=plan,
            place=place,
            # A stage that nobody named is kept, and so is the one beside a tuned row of the same model.
            fresh=bool(options.fresh)
            and plan.model in models
            and (plan.search is None) == (plan.model not in tuned[name]),
            exports=tuple(exports),
            export_k=export_k,
            stage=is_stage(plan, plans[name]),
            dataset=name,
        )
        for name in names
        for place in places
        for plan in plans[name]
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
            job if job.fresh or check_earlier(job, data[job.dataset][1]) else replace(job, deferred=True)
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
                        failed += not told(job, run_job(job, *data[name]))
                        locks.release(job)
                finish(name)
    return EXIT_ROW_FAILED if failed else 0


def _check_language_models(jobs: Sequence[RowJob], data: Mapping[str, tuple[Dataset, Split]], *, here: bool) -> None:
    """Refuse a language model that a run cannot use, before anything that the run reads is trained.

    Raises:
        HellmError: it says what is wrong with it.
    """
    check, checked = LanguageModelCheck(here=here), set()
    for job in jobs:
        split = data[job.dataset][1]
        if job.plan.family != LLM or (job.plan.row, job.dataset) in checked:
            continue
        if not needs_work(job):
            continue
        check_language_model(check, job.plan, split)
        checked.add((job.plan.row, job.dataset))


def _tuned(rows: Sequence[RowPlan], output: Path, split: Split) -> dict[str, Tuned]:
    """Model -> what tune.py has found for it; models without anything to search run as they are.

    Raises:
        SettingsError: a model could be searched and was not.
        RecordError: what was found is broken or of another split.
    """
    found = {}
    for plan in rows:
        tuned = read_tuned(output, split.dataset, plan.row, split.sha256)
        if tuned is not None:
            found[plan.model] = tuned
        elif can_be_searched(split_variant(plan.model, REGISTRY)[0]):
            raise SettingsError(
                f"--tuned: there is no {tuned_file(output, split.dataset, plan.row)}; run "
                f"`python benchmarks/tune.py --models {plan.model} --dataset {split.dataset}` first"
            )
    return found
