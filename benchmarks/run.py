"""Run models on datasets and print the comparison table: `python benchmarks/run.py --models all --dataset Beauty`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import hellm_recbole.system.openmp  # noqa: F401

import torch

from baselines.registry import RECBOLE_BASELINES, REGISTRY
from benchmarks.dry_run import dry_run
from benchmarks.rows import JobLocks, RowJob, announce_removals, check_earlier, needs_work, run_job, run_on_ray, told
from hellm_recbole.config.layers import LARGEST_SEED, MOST_THREADS, shorten
from hellm_recbole.config.search_space import can_be_searched
from hellm_recbole.config.variants import all_variants
from hellm_recbole.data.atomic import Dataset, load_dataset
from hellm_recbole.data.prepare import known_datasets, prepare_if_known
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import HellmError, ModelError, SettingsError
from hellm_recbole.experiments.export import EXPORTS, TEST_LISTS, count_left_out
from hellm_recbole.experiments.identity import identify_code
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.ray_cluster import LOCAL
from hellm_recbole.experiments.resolve import (
    NOTHING_TUNED,
    Override,
    RowPlan,
    Tuned,
    is_stage,
    parse_override,
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
from hellm_recbole.system.console import run_main
from hellm_recbole.system.distributed import Team, join_team, refuse_team
from hellm_recbole.system.files import ensure_folder, sweep_temporaries

Choose = Callable[[Sequence[str], str, Sequence[str]], list[str]]
ALL = (*RECBOLE_BASELINES, *REGISTRY)
EXIT_ROW_FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rows and print the tables; exit code 0, 1 if a row failed, 2 for a fault in what was asked."""
    options, rest = argument_parser("run.py", __doc__).parse_known_args(argv)
    return run_main(lambda: run(options, rest))


def argument_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all commands which run rows share."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="--key=value sets a setting as --set key=value does.",
        allow_abbrev=False,
    )
    add_what_and_where(parser)
    parser.add_argument("--seeds", default="2024", help="separated by commas (%(default)s)")
    parser.add_argument("--tuned", action="store_true", help="run the rows with the values that tune.py has found")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="run the rows side by side as Ray tasks: on this machine, or on the cluster at ADDRESS (auto, ray://HOST:PORT)",
    )
    parser.add_argument(
        "--protocol", choices=("unified", "paper"), default="unified", help="which table is printed (%(default)s)"
    )
    parser.add_argument(
        "--export",
        metavar="WHAT",
        help=f"write of each run, separated by commas: {TEST_LISTS}, top-K lists of the test phase, for analysing a "
        "test result and not for serving (a user's test items were neither read nor masked); embeddings",
    )
    parser.add_argument(
        "--export-k",
        metavar="K",
        help=f"entries of each list of --export {TEST_LISTS} (largest cut-off of the run); a user with fewer "
        "candidates gets fewer",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="run the named rows again if they are finished or half-way"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what the LLM rows would take, and end")
    parser.add_argument("--list", action="store_true", help="show models, datasets and presets, and end")
    return parser


def add_what_and_where(parser: argparse.ArgumentParser) -> None:
    """The options that say which models, data, settings and machine: those of run.py and tune.py alike."""
    parser.add_argument(
        "--models",
        default="all",
        help="names separated by commas, or all; any general or sequential model of RecBole is one",
    )
    parser.add_argument("--dataset", default="ml-100k", help="names separated by commas (%(default)s)")
    parser.add_argument("--preset", default="paper", help="quick or paper (%(default)s)")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="[MODEL.]KEY=VALUE", help="override a setting"
    )
    parser.add_argument("--llm", help="language model of the LLM rows: auto, a hub id, a folder or a GGUF file (auto)")
    parser.add_argument("--llm-layers", type=int, metavar="N", help="keep its first N layers, for CPUs")
    parser.add_argument("--data-path", type=Path, help="folder with the source of the datasets")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the results (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads, or CPUs of a local Ray cluster; all if not given")


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
    exports = _exports(options.export)
    export_k = _export_k(options.export_k, exports)
    models = list(ALL) if options.models == "all" else named(options.models, "--models")
    names = named(options.dataset, "--dataset")

    def planned(asked: Sequence[str], name: str, tuned: Mapping[str, Tuned] = NOTHING_TUNED) -> list[RowPlan]:
        return plan_with_stages(asked, name, REGISTRY, options.preset, overrides, tuned)

    plans = {name: planned(models, name) for name in names}  # what is misspelt is refused before any data is read
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
        for name in names:
            dry_run(plans[name], data[name][1], places[0])
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
        try:
            check.check(job.plan.model_settings, split.item_text)
        except HellmError as error:
            raise type(error)(f"{job.plan.row} on {job.dataset}: {error}") from error
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


def load(name: str, data_path: Path | None) -> tuple[Dataset, Split]:
    """A dataset, prepared first where its source is at hand, and its split."""
    prepared = prepare_if_known(name, data_path=data_path, dataset_root=Path("dataset"))
    for warning in prepared.warnings:
        print(f"{name}: {warning}")
    dataset = load_dataset(prepared.folder, modalities=None)
    return dataset, split_dataset(dataset)


def named(text: str, option: str) -> list[str]:
    """Names separated by commas, each once.

    Raises:
        ModelError: there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ModelError(f"{option} names nothing; give names separated by commas")
    return list(dict.fromkeys(names))


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that no machine has.

    Raises:
        SettingsError: it is below 1 or too large.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise SettingsError(f"--threads {threads} must be at least 1 and at most {MOST_THREADS}")


def seeds_of(text: str) -> list[int]:
    """Seeds separated by commas, each once.

    Raises:
        SettingsError: one of them is no integer, negative or too large.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise SettingsError(
            f"--seeds {shorten(text)!r} must be integers separated by commas, such as 2024,2025"
        ) from error
    if min(seeds) < 0 or max(seeds) > LARGEST_SEED:
        raise SettingsError(f"--seeds {shorten(text)!r}: a seed must be at least 0 and at most {LARGEST_SEED}")
    return list(dict.fromkeys(seeds))


def _exports(text: str | None) -> list[str]:
    exports = [] if text is None else named(text, "--export")
    for name in exports:
        if name == "recommendations":
            raise SettingsError(
                f"--export {name} is called {TEST_LISTS} now, for these are the lists of the test phase, made without "
                "the user's last item: they are for analysing a test result, not for serving"
            )
        if name not in EXPORTS:
            raise SettingsError(f"--export {name!r} is unknown; it can be {' or '.join(EXPORTS)}")
    return exports


def _export_k(text: str | None, exports: Sequence[str]) -> int | None:
    if text is None:
        return None
    if TEST_LISTS not in exports:
        raise SettingsError(f"--export-k is the length of exported lists; give it with --export {TEST_LISTS}")
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise SettingsError(f"--export-k {shorten(text)!r} must be a whole number from 1 to 999,999,999, such as 10")
    return int(text)


def overrides_of(options: argparse.Namespace, rest: Sequence[str]) -> list[Override]:
    """Settings of `--llm`, `--llm-layers`, `--set key=value`, and of RecBole's form `--key=value`.

    Raises:
        SettingsError: one of them is not understood.
    """
    llm = (("llm", options.llm, "--llm"), ("llm_layers", options.llm_layers, "--llm-layers"))
    overrides = [Override(None, key, value, f"{option} {value}") for key, value, option in llm if value is not None]
    overrides += [parse_override(text, "--set ") for text in options.settings]
    for text in rest:
        overrides.append(parse_override(text.removeprefix("--"), "--" if text.startswith("--") else ""))
    return overrides


if __name__ == "__main__":
    sys.exit(main())
