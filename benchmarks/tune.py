"""Search settings with Ray Tune: `python benchmarks/tune.py --models HeLLMPre --dataset Beauty --budget trials=20`.

Every model gets the same budget. Trials see the training and validation parts only; the best values of each row go to
`results/<dataset>/tuned/`, from where `run.py --tuned` takes them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import hellm_recbole.system.openmp  # noqa: F401

from baselines.registry import REGISTRY
from benchmarks.options import (
    check_threads,
    load_data,
    make_search_parser,
    parse_names,
    parse_seeds,
    read_overrides,
)
from benchmarks.searches import format_trials, make_search_task, run_searches
from hellm_recbole.config.layers import find_properties, parse_value
from hellm_recbole.config.search_space import list_searched_keys, read_search_space
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.resolve import resolve_runs, split_variant
from hellm_recbole.experiments.sweeps import SearchResult, write_tuned
from hellm_recbole.experiments.tuning import (
    SchedulerName,
    SearchBudget,
    SearchName,
)
from hellm_recbole.models.base import LLM
from hellm_recbole.system.console import run_main
from hellm_recbole.system.distributed import refuse_process_group
from hellm_recbole.system.files import check_name

EXIT_NOTHING_FOUND = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the searches and print what they found; exit code 0, 1 if one found nothing, 2 for bad arguments."""
    parser = make_search_parser("tune.py", __doc__)
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


def _tune(options: argparse.Namespace, rest: Sequence[str]) -> int:
    refuse_process_group("tune.py")
    check_name(options.name, "--name")
    check_threads(options.threads)
    if options.resume and options.fresh:
        raise SettingsError("--resume and --fresh contradict each other; give one of them")
    budget = SearchBudget.parse(options.budget)
    overrides = read_overrides(options, rest)
    (seed,) = parse_seeds(str(options.seed))
    tunable = [path.stem for path in sorted((find_properties() / "sweep").glob("*.yaml"))]
    models = tunable if options.models == "all" else parse_names(options.models, "--models")
    datasets = parse_names(options.dataset, "--dataset")
    changed = [_space(text) for text in options.space]
    for owner, key, _ in changed:
        if owner is not None and owner not in models:
            raise SettingsError(f"--space {owner}.{key}: {owner} is not among the models of this search")
    tasks = []
    for dataset in datasets:
        configs = resolve_runs(models, dataset, REGISTRY, options.preset, overrides)
        split = load_data(dataset, options.data_path)[1]
        for config in configs:
            if config.family == LLM:
                LanguageModelCheck().check(config.model_settings, split.item_text)
            base = split_variant(config.model, REGISTRY)[0]
            tasks.append(
                make_search_task(
                    config,
                    split,
                    read_search_space(
                        base,
                        _tried(base, config.model, changed, options.only),
                        config.resolved.values,
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
    found = [_told(sweep, options.output) for sweep in run_searches(tasks, options)]
    return 0 if all(found) else EXIT_NOTHING_FOUND


def _told(sweep: SearchResult, output: Path) -> bool:
    """Print what a search has found and write the best values; whether it has found any."""
    if sweep.problem is None:
        print(f"{format_trials(sweep)}\nwritten to {write_tuned(output, sweep)}\n", flush=True)
        return True
    print(f"error: {sweep.row} on {sweep.dataset}: {sweep.problem}", file=sys.stderr)
    return False


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
    kept, listed = parse_names(only, "--only"), {*list_searched_keys(base), *values}
    for key in kept:
        if key not in listed:
            raise SettingsError(
                f"--only names {key}, for which {model} has no values; give some with --space {key}=[A,B]"
            )
    return {key: [] for key in listed if key not in kept} | {key: values[key] for key in kept if key in values}


if __name__ == "__main__":
    sys.exit(main())
