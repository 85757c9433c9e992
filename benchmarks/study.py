"""Run and draw hyper-parameter studies of a model: `python benchmarks/study.py --models HeLLMPre --dataset TikTok`.

A study is a grid search over one or two settings. All other settings keep the values of the settings files. The figure
shows the validation metric, never a test metric. The values are in `properties/study/<Model>.yaml`. A study that has
finished before is only drawn again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import hellm_recbole.system.openmp  # noqa: F401

from baselines.registry import REGISTRY
from benchmarks.options import (
    load_data,
    make_search_parser,
    parse_names,
    read_search_request,
)
from benchmarks.searches import make_search_task
from hellm_recbole.config.request import SearchBudget
from hellm_recbole.config.search_space import count_points
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.model_layers import split_variant
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.experiments.search_task import SearchTask
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.experiments.tuning import run_searches
from hellm_recbole.report.figures import write_figure
from hellm_recbole.report.page_figures import FIGURES, name_figure
from hellm_recbole.report.studies import PREFIX, draw_study, list_studies
from hellm_recbole.system.console import run_main
from hellm_recbole.system.distributed import refuse_process_group

EXIT_NOTHING_TO_DRAW = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run and draw the studies. The exit code is 0, 1 if a study has nothing to draw, or 2 if an input is invalid."""
    parser = make_search_parser("study.py", __doc__)
    parser.set_defaults(models="HeLLMPre")
    parser.add_argument(
        "--studies", default="all", help="names of the studies, separated by commas, or all (default: %(default)s)"
    )
    options, rest = parser.parse_known_args(argv)
    return run_main(lambda: _run_studies(options, rest), "give the same command with --resume to resume")


def _run_studies(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Set up, run and draw the studies, and return the exit code."""
    refuse_process_group("study.py")
    request = read_search_request(options, rest, parse_names(options.models, "--models"))
    tasks: list[SearchTask] = []
    for dataset in request.datasets:
        split = load_data(dataset, options.data_path)[1]
        for config in resolve_runs(request.models, dataset, REGISTRY, request.preset, request.overrides):
            for name, axes in _select_studies(split_variant(config.model, REGISTRY)[0], options.studies).items():
                tasks.append(
                    make_search_task(
                        config,
                        split,
                        axes,
                        request,
                        budget=SearchBudget(count_points(axes), None),
                        scheduler="none",
                        search="grid",
                        name=f"{PREFIX}{name}",
                    )
                )
    drawn = [_draw(result, options.output) for result in run_searches(tasks, request)]
    return 0 if all(drawn) else EXIT_NOTHING_TO_DRAW


def _draw(result: SearchResult, output: Path) -> bool:
    """Write the figure of a study and print its path. Return whether there was anything to draw."""
    study = draw_study(result)
    if study is None:
        print(f"error: {result.name} of {result.row} has nothing to draw: {result.problem}", file=sys.stderr)
        return False
    path = write_figure(output / result.dataset / FIGURES, name_figure(result), study.figure)
    best = ", ".join(f"{key}={value}" for key, value in result.best["values"].items())
    print(f"{study.title}: best {best}; {study.caption} written to {path} and {path.with_suffix('.png')}", flush=True)
    return True


def _select_studies(model: str, requested: str) -> dict[str, dict[str, list[object]]]:
    """Return the requested studies of a model: name -> values of each setting.

    Raises:
        ModelError: a study is unknown.
        SettingsError: the model has no studies.
    """
    known = list_studies(model)
    if requested == "all":
        return known
    names = parse_names(requested, "--studies")
    for name in names:
        if name not in known:
            raise ModelError(f"{model} has no study {name!r}; it has {', '.join(known)}")
    return {name: known[name] for name in names}


if __name__ == "__main__":
    sys.exit(main())
