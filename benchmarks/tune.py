"""Search settings with Ray Tune: `python benchmarks/tune.py --models HeLLMPre --dataset Beauty --budget trials=20`.

Every model gets the same budget. Trials get only the training and validation parts. The best values of each model are
written to `results/<dataset>/tuned/`, and `run.py --tuned` reads them there.
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
    read_search_request,
)
from benchmarks.searches import format_trials, make_search_task
from hellm_recbole.config.request import SchedulerName, SearchBudget, SearchName
from hellm_recbole.config.search_space import list_searched_keys, read_search_space
from hellm_recbole.config.yaml_files import find_properties, parse_value
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.model_layers import split_variant
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.experiments.run_config import LLMRunConfig
from hellm_recbole.experiments.sweeps import SearchResult, write_tuned
from hellm_recbole.experiments.tuning import run_searches
from hellm_recbole.system.console import run_main
from hellm_recbole.system.distributed import refuse_process_group
from hellm_recbole.system.files import check_name

EXIT_NOTHING_FOUND = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the searches and print the trials. The exit code is 0, 1 if a search failed, or 2 if an input is invalid."""
    parser = make_search_parser("tune.py", __doc__)
    parser.add_argument(
        "--budget",
        default="trials=20",
        help="budget of the search of each model, such as trials=20 or minutes=60 (default: %(default)s)",
    )
    parser.add_argument(
        "--scheduler",
        choices=get_args(SchedulerName),
        default="asha",
        help="scheduler of the trials; asha stops poor trials early (default: %(default)s)",
    )
    parser.add_argument(
        "--search",
        choices=get_args(SearchName),
        default="random",
        help="method that chooses the values (default: %(default)s)",
    )
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="[MODEL.]KEY=[A,B]",
        help="values to try instead of those in the search space; [] excludes a setting",
    )
    parser.add_argument("--only", metavar="KEY,KEY", help="settings to search; all others keep their values")
    parser.add_argument(
        "--name",
        default="tune",
        help="name of the search, for a model with several searches (default: %(default)s)",
    )
    options, rest = parser.parse_known_args(argv)
    return run_main(lambda: _run_tuning(options, rest), "give the same command with --resume to resume")


def _run_tuning(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Set up and run the searches, and return the exit code."""
    refuse_process_group("tune.py")
    check_name(options.name, "--name")
    check_threads(options.threads)
    if options.resume and options.fresh:
        raise SettingsError("--resume and --fresh contradict each other; use only one of them")
    budget = SearchBudget.parse(options.budget)
    tunable = [path.stem for path in sorted((find_properties() / "sweep").glob("*.yaml"))]
    models = tunable if options.models == "all" else parse_names(options.models, "--models")
    request = read_search_request(options, rest, models)
    changed = [_parse_space(text) for text in options.space]
    for owner, key, _ in changed:
        if owner is not None and owner not in models:
            raise SettingsError(f"--space {owner}.{key}: {owner} is not among the models of this search")
    tasks = []
    for dataset in request.datasets:
        configs = resolve_runs(models, dataset, REGISTRY, request.preset, request.overrides)
        split = load_data(dataset, request.data_path)[1]
        for config in configs:
            if isinstance(config, LLMRunConfig):
                LanguageModelCheck().check(config.model_settings, split.item_text)
            base = split_variant(config.model, REGISTRY)[0]
            tasks.append(
                make_search_task(
                    config,
                    split,
                    read_search_space(
                        base,
                        _override_space(base, config.model, changed, options.only),
                        config.resolved.values,
                        with_current=options.search != "grid",
                    ),
                    request,
                    budget=budget,
                    scheduler=options.scheduler,
                    search=options.search,
                    name=options.name,
                )
            )
    succeeded = [_report_outcome(result, options.output) for result in run_searches(tasks, request)]
    return 0 if all(succeeded) else EXIT_NOTHING_FOUND


def _report_outcome(result: SearchResult, output: Path) -> bool:
    """Print the trials of a search and write the best values. Return whether there are any."""
    if result.problem is None:
        print(f"{format_trials(result)}\nwritten to {write_tuned(output, result)}\n", flush=True)
        return True
    print(f"error: {result.row} on {result.dataset}: {result.problem}", file=sys.stderr)
    return False


def _parse_space(text: str) -> tuple[str | None, str, list[object]]:
    """Parse `[MODEL.]KEY=[A,B]` into model, key and values. The model is None if the text names none.

    Raises:
        SettingsError: the text has another form.
    """
    key, equals, value = text.partition("=")
    parsed = parse_value(value, f"--space {text}") if equals else None
    if not isinstance(parsed, list):
        raise SettingsError(f"--space {text} is not understood; write --space KEY=[A,B] or --space MODEL.KEY=[A,B]")
    model, dot, bare = key.rpartition(".")
    return (model if dot else None), bare, parsed


def _override_space(
    base: str, model: str, changed: Sequence[tuple[str | None, str, list[object]]], only: str | None
) -> dict[str, list[object]]:
    """Return the values that replace those in the model's search space. An empty list excludes a setting.

    Args:
        base: name of the model without its variant.
        model: name of the model.
        changed: model or None, key and values of each `--space`.
        only: value of `--only`.

    Raises:
        SettingsError: `--only` names a setting that has no values to try.
    """
    values = {key: listed for owner, key, listed in changed if owner in (None, model)}
    if only is None:
        return values
    searched, known = parse_names(only, "--only"), {*list_searched_keys(base), *values}
    for key in searched:
        if key not in known:
            raise SettingsError(
                f"--only names {key}, but {model} has no values to try for it; add values with --space {key}=[A,B]"
            )
    return {key: [] for key in known if key not in searched} | {key: values[key] for key in searched if key in values}


if __name__ == "__main__":
    sys.exit(main())
