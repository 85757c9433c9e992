"""Search settings with Ray Tune: `python benchmarks/tune.py --models HeLLMPre --dataset Beauty --budget trials=20`.

Every model gets the same budget. Trials see the training and validation parts only; the best values of each row go to
`results/<dataset>/tuned/`, from where `run.py --tuned` takes them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import get_args

import hellm_recbole.system.openmp  # noqa: F401

from tabulate import tabulate

from baselines.registry import REGISTRY
from benchmarks.rows import announce_removals
from benchmarks.run import add_what_and_where, check_threads, load, named, overrides_of, seeds_of
from hellm_recbole.config.layers import parse_value, properties_dir
from hellm_recbole.config.search_space import Space, listed_keys, search_space
from hellm_recbole.data.split import Split
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.identity import identify_run, list_run_parts
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.pretrained import identify_embeddings, stage_tables
from hellm_recbole.experiments.ray_cluster import LOCAL, cluster, refuse_numbered
from hellm_recbole.experiments.resolve import Override, RowPlan, plan_rows, split_variant
from hellm_recbole.experiments.sweeps import SWEEP_FILE, Sweep, write_tuned
from hellm_recbole.experiments.tuning import (
    Budget,
    SchedulerName,
    SearchName,
    SweepTask,
    TrialJob,
    run_sweep,
    search_folder,
)
from hellm_recbole.models.base import LLM
from hellm_recbole.system.console import run_main
from hellm_recbole.system.distributed import refuse_team
from hellm_recbole.system.files import check_name
from hellm_recbole.system.locks import FolderLock

EXIT_NOTHING_FOUND = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the searches and print what they found; exit code 0, 1 if one found nothing, 2 for bad arguments."""
    parser = search_parser("tune.py", __doc__)
    parser.add_argument("--budget", default="trials=20", help="of each model: trials=20 or minutes=60 (%(default)s)")
    parser.add_argument(
        "--scheduler",
        choices=get_args(SchedulerName),
        default="asha",
        help="asha stops poor trials early (%(default)s)",
    )
    parser.add_argument(
        "--search", choices=get_args(SearchName), default="random", help="how values are chosen (%(default)s)"
    )
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="[MODEL.]KEY=[A,B]",
        help="other values to try; [] leaves a key out",
    )
    parser.add_argument("--only", metavar="KEY,KEY", help="search these settings alone")
    parser.add_argument("--name", default="tune", help="of the search, where a model has several (%(default)s)")
    options, rest = parser.parse_known_args(argv)
    return run_main(lambda: _tune(options, rest))


def search_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all commands which run trials share."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="--key=value sets a setting of every trial as --set key=value does.",
        allow_abbrev=False,
    )
    add_what_and_where(parser)
    parser.add_argument("--seed", type=int, default=2024, help="of every trial, and of the points drawn (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with searches that were stopped")
    parser.add_argument("--fresh", action="store_true", help="start anew")
    parser.add_argument(
        "--address",
        default=LOCAL,
        help="local, auto (a cluster that runs on this machine), or ray://HOST:PORT (%(default)s)",
    )
    return parser


def _tune(options: argparse.Namespace, rest: Sequence[str]) -> int:
    refuse_team("tune.py")
    check_name(options.name, "--name")
    check_threads(options.threads)
    if options.resume and options.fresh:
        raise SettingsError("--resume and --fresh contradict each other; give one of them")
    budget = Budget.parse(options.budget)
    overrides = overrides_of(options, rest)
    (seed,) = seeds_of(str(options.seed))
    tunable = [path.stem for path in sorted((properties_dir() / "sweep").glob("*.yaml"))]
    models = tunable if options.models == "all" else named(options.models, "--models")
    datasets = named(options.dataset, "--dataset")
    changed = [_space(text) for text in options.space]
    for owner, key, _ in changed:
        if owner is not None and owner not in models:
            raise SettingsError(f"--space {owner}.{key}: {owner} is not among the models of this search")
    tasks = []
    for dataset in datasets:
        plans = plan_rows(models, dataset, REGISTRY, options.preset, overrides)
        split = load(dataset, options.data_path)[1]
        for plan in plans:
            if plan.family == LLM:
                LanguageModelCheck().check(plan.model_settings, split.item_text)
            base = split_variant(plan.model, REGISTRY)[0]
            tasks.append(
                sweep_task(
                    plan,
                    split,
                    search_space(
                        base,
                        _tried(base, plan.model, changed, options.only),
                        plan.resolved.values,
                        with_current=options.search != "grid",
                    ),
                    overrides,
                    seed,
                    budget=budget,
                    scheduler=options.scheduler,
                    search=options.search,
                    name=options.name,
                    options=options,
                )
            )
    found = [_told(sweep, options.output) for sweep in swept(tasks, options)]
    return 0 if all(found) else EXIT_NOTHING_FOUND


def swept(tasks: Sequence[SweepTask], options: argparse.Namespace) -> Iterator[Sweep]:
    """Run searches one after the other on one cluster; each as soon as it is over.

    Raises:
        HellmError: there is no cluster at the address, or a search cannot be run or taken up.
    """
    folders = [search_folder(task, options.output) for task in tasks]
    with ExitStack() as stack:
        for task, folder in zip(tasks, folders, strict=True):
            if options.fresh or not (folder / SWEEP_FILE).exists():
                stack.enter_context(FolderLock(folder, f"search {task.name} of {task.base.row} on {task.job.dataset}"))
        if options.fresh:
            announce_removals(folders, options.output)
        stack.enter_context(cluster(options.address, options.threads))
        for task in tasks:
            try:
                yield run_sweep(task, options.output, resume=options.resume, fresh=options.fresh)
            except KeyboardInterrupt:
                print("give the same command with --resume to go on with this search", file=sys.stderr)
                raise


def _told(sweep: Sweep, output: Path) -> bool:
    """Print what a search has found and write the best values; whether it has found any."""
    if sweep.problem is None:
        print(f"{shown(sweep)}\nwritten to {write_tuned(output, sweep)}\n", flush=True)
        return True
    print(f"error: {sweep.row} on {sweep.dataset}: {sweep.problem}", file=sys.stderr)
    return False


def sweep_task(
    plan: RowPlan,
    split: Split,
    space: Space,
    overrides: Sequence[Override],
    seed: int,
    *,
    budget: Budget,
    scheduler: SchedulerName,
    search: SearchName,
    name: str,
    options: argparse.Namespace,
) -> SweepTask:
    """The search of one row; all that a trial is handed comes without the test part.

    Args:
        plan: of the row.
        split: of the dataset.
        space: values to try.
        overrides: settings of all trials.
        seed: of all trials.
        budget: what it may spend.
        scheduler: whether ASHA prunes.
        search: how points are chosen.
        name: of the search.
        options: output folder, preset and device.

    Raises:
        SettingsError: a value to try is not one that the setting can have, or the device has a number.
        ModelError: a stage that the row reads from has not been run.
    """
    data = split.selection()
    refuse_numbered(options.device)
    stages = stage_tables(options.output, split.dataset, plan.stages, seed, split.sha256, split.item_tokens)
    identity = identify_run(plan, split, identify_embeddings(options.output, split.dataset, seed, stages))
    parts = list_run_parts(plan, split, seed, identity)
    if identity["features"] or "modalities" in space:  # trials may read others than the model does by itself
        parts |= {f"features of {name}": digest for name, digest in split.feature_sha256.items()}
    cache = None if data.train.cache is None else data.train.cache.resolve()
    job = TrialJob(
        model=plan.model,
        dataset=split.dataset,
        registry=REGISTRY,
        preset=options.preset,
        overrides=tuple(overrides),
        space=space,
        data=replace(data, train=replace(data.train, stages=stages, cache=cache)),
        seed=seed,
        device=options.device,
        folder=Path.cwd(),
        run=parts,
    )
    for key, values in space.items():
        for value in values:
            job.plan({key: value})  # a misspelt or impossible value is refused before the first trial
    return SweepTask(job, plan, space, name, budget, scheduler, search, split.sha256, split.n_items)


def shown(sweep: Sweep) -> str:
    """The trials of a search as a table, best first."""
    metric = sweep.valid_metric
    keys = list(sweep.space)
    order = sorted(sweep.trials, key=lambda trial: -trial["valid"].get(metric, 0.0))
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
        f"{sweep.row} on {sweep.dataset}, validation, {sweep.budget}, scheduler {sweep.scheduler}, "
        f"search {sweep.search}, seed {sweep.seed}"
        f"{'' if sweep.search == 'grid' else '; trial 1 has the values of the files'}\n{table}"
    )


def _space(text: str) -> tuple[str | None, str, list[object]]:
    key, equals, value = text.partition("=")
    parsed = parse_value(value, f"--space {text}") if equals else None
    if not isinstance(parsed, list):
        raise SettingsError(f"--space {text} is not understood; write --space KEY=[A,B] or --space MODEL.KEY=[A,B]")
    model, dot, bare = key.rpartition(".")
    return (model if dot else None), bare, parsed


def _tried(
    base: str, model: str, changed: Sequence[tuple[str | None, str, list[object]]], only: str | None
) -> dict[str, list[object]]:
    """Values instead of those of the model's file; an empty list leaves a key out.

    Raises:
        SettingsError: `--only` names a key that has no values.
    """
    values = {key: tried for owner, key, tried in changed if owner in (None, model)}
    if only is None:
        return values
    kept, listed = named(only, "--only"), {*listed_keys(base), *values}
    for key in kept:
        if key not in listed:
            raise SettingsError(
                f"--only names {key}, for which {model} has no values; give some with --space {key}=[A,B]"
            )
    return {key: [] for key in listed if key not in kept} | {key: values[key] for key in kept if key in values}


if __name__ == "__main__":
    sys.exit(main())
