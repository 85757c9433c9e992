"""Run models on datasets and print the comparison table: `python benchmarks/run.py --models all --dataset Beauty`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch

from baselines.registry import RECBOLE_BASELINES, REGISTRY
from benchmarks.dry_run import dry_run
from hellm_recbole import runtime
from hellm_recbole.ablation import write_ablation
from hellm_recbole.console import run_main
from hellm_recbole.data.atomic import Dataset, load_dataset
from hellm_recbole.data.catalog import known_datasets, prepare_if_known
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import HellmError, ModelError, SettingsError
from hellm_recbole.experiment import Place, export_row, finished_record, run_row
from hellm_recbole.export import EMBEDDINGS
from hellm_recbole.files import ensure_folder
from hellm_recbole.plan import Override, RowPlan, is_stage, plan_with_stages, presets
from hellm_recbole.results import find_records
from hellm_recbole.settings import parse_value
from hellm_recbole.slices import write_slices
from hellm_recbole.stages import stage_folder
from hellm_recbole.tables import write_tables
from hellm_recbole.variants import all_variants

Choose = Callable[[Sequence[str], str, Sequence[str]], list[str]]
ALL = (*RECBOLE_BASELINES, *REGISTRY)
EXPORTS = ("recommendations", EMBEDDINGS)
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
    parser.add_argument(
        "--models",
        default="all",
        help="names separated by commas, or all; any general or sequential model of RecBole is one",
    )
    parser.add_argument("--dataset", default="ml-100k", help="names separated by commas (%(default)s)")
    parser.add_argument("--preset", default="paper", help="quick or paper (%(default)s)")
    parser.add_argument("--seeds", default="2024", help="separated by commas (%(default)s)")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="[MODEL.]KEY=VALUE", help="override a setting"
    )
    parser.add_argument("--llm", help="language model of the LLM rows: auto, a hub id, a folder or a GGUF file (auto)")
    parser.add_argument("--llm-layers", type=int, metavar="N", help="keep its first N layers, for CPUs")
    parser.add_argument("--data-path", type=Path, help="folder with the source of the datasets")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the results (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores if not given")
    parser.add_argument(
        "--protocol", choices=("unified", "paper"), default="unified", help="which table is printed (%(default)s)"
    )
    parser.add_argument("--export", help=f"write {' or '.join(EXPORTS)} of each row, separated by commas")
    parser.add_argument(
        "--fresh", action="store_true", help="run the named rows again if they are finished or half-way"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what the LLM rows would take, and end")
    parser.add_argument("--list", action="store_true", help="show models, datasets and presets, and end")
    return parser


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
        if options.threads < 1:
            raise SettingsError(f"--threads {options.threads} must be at least 1")
        torch.set_num_threads(options.threads)
    device = runtime.choose_device(options.device)
    overrides = [*_llm_overrides(options), *_overrides(options.settings, rest)]
    seeds = _seeds(options.seeds)
    exports = _exports(options.export)
    models = list(ALL) if options.models == "all" else _names(options.models, "--models")
    names = _names(options.dataset, "--dataset")

    def planned(asked: Sequence[str], name: str) -> list[RowPlan]:
        return plan_with_stages(asked, name, REGISTRY, options.preset, overrides)

    plans = {name: planned(models, name) for name in names}
    ensure_folder(options.output)
    data = {name: _load(name, options.data_path) for name in names}
    if choose is not None:
        plans = {name: planned(choose(models, name, sorted(data[name][0].features)), name) for name in names}
    places = [Place(options.output, seed, device) for seed in seeds]

    def fresh(plan: RowPlan) -> bool:
        return bool(options.fresh) and plan.model in models  # a stage that nobody named is kept

    if options.dry_run:
        for name in names:
            dry_run(plans[name], data[name][1], places[0])
        return 0
    for name in names:  # refuse before the first epoch, not after hours
        for plan in plans[name]:
            for place in places:
                if not fresh(plan):
                    finished_record(plan, data[name][1], place)
    failed = 0
    for name in names:
        for place in places:
            for plan in plans[name]:
                failed += not _one(plan, *data[name], place, fresh(plan), exports, is_stage(plan, plans[name]))
        print(write_tables(options.output, name, options.protocol))
        print_ablation(options.output, name)
        write_slices(options.output, name)
        print(f"written to {options.output / name}")
    return EXIT_ROW_FAILED if failed else 0


def print_ablation(output: Path, dataset: str) -> None:
    """Write and print the ablation table of a dataset where a variant has finished."""
    shown = write_ablation(output, dataset, find_records(output, dataset))
    if shown is not None:
        print(f"{shown}\n")


def _one(
    plan: RowPlan, dataset: Dataset, split: Split, place: Place, fresh: bool, exports: Collection[str], stage: bool
) -> bool:
    """Run one row unless it is finished, export what is asked for or another row reads; whether all went well."""
    record = None if fresh else finished_record(plan, split, place)
    if record is None:
        record = run_row(plan, dataset, split, place, fresh=fresh)
    if record.status != "success":
        print(f"error: {plan.model} on {split.dataset}, seed {place.seed}: {record.reason}", file=sys.stderr)
        return False
    if stage and not (stage_folder(place.output, split.dataset, plan.model, place.seed) / EMBEDDINGS).is_dir():
        exports = {*exports, EMBEDDINGS}
    if exports:
        try:
            export_row(plan, split, place, exports)
        except HellmError as error:
            print(f"error: export of {plan.model} on {split.dataset}: {error}", file=sys.stderr)
            return False
    return True


def _load(name: str, data_path: Path | None) -> tuple[Dataset, Split]:
    dataset = load_dataset(prepare_if_known(name, data_path=data_path, dataset_root=Path("dataset")), modalities=None)
    return dataset, split_dataset(dataset)


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ModelError(f"{option} names nothing; give names separated by commas")
    return list(dict.fromkeys(names))


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise SettingsError(f"--seeds {text!r} must be integers separated by commas, such as 2024,2025") from error
    if min(seeds) < 0:
        raise SettingsError(f"--seeds {text!r}: a seed must be at least 0")
    return list(dict.fromkeys(seeds))


def _llm_overrides(options: argparse.Namespace) -> list[Override]:
    """`--llm` and `--llm-layers` are settings of every LLM row."""
    given = (("llm", options.llm, "--llm"), ("llm_layers", options.llm_layers, "--llm-layers"))
    return [Override(None, key, value, f"{option} {value}") for key, value, option in given if value is not None]


def _exports(text: str | None) -> list[str]:
    exports = [] if text is None else _names(text, "--export")
    for name in exports:
        if name not in EXPORTS:
            raise SettingsError(f"--export {name!r} is unknown; it can be {' or '.join(EXPORTS)}")
    return exports


def _overrides(given: Sequence[str], rest: Sequence[str]) -> list[Override]:
    """Settings of `--set key=value` and of RecBole's form `--key=value`."""
    overrides = []
    for text, option in [*((text, "--set ") for text in given), *((text.removeprefix("--"), "--") for text in rest)]:
        key, equals, value = text.partition("=")
        origin = f"{option}{text}"
        if not equals or not key or (option == "--" and f"--{text}" not in rest):
            raise SettingsError(
                f"{origin} is not understood; write a setting as --set key=value, and see --help for the options"
            )
        model, dot, bare = key.rpartition(".")
        overrides.append(Override(model if dot else None, bare, parse_value(value, origin), origin))
    return overrides


if __name__ == "__main__":
    sys.exit(main())
