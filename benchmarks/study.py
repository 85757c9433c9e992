"""Run and draw the hyperparameter studies of a model: `python benchmarks/study.py --models HeLLMPre --dataset TikTok`.

One or two settings go over their values, all else as in the files; what is drawn is validation, never the test part.
Values stand in `properties/study/<Model>.yaml`. A study that has been run is only drawn.
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
    parse_seeds,
    read_overrides,
)
from benchmarks.searches import make_search_task, run_searches
from hellm_recbole.config.search_space import count_points
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.resolve import resolve_runs, split_variant
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.experiments.tuning import SearchBudget, SearchTask
from hellm_recbole.report.figures import write_figure
from hellm_recbole.report.page import FIGURES, name_figure
from hellm_recbole.report.studies import PREFIX, draw_study, list_studies
from hellm_recbole.system.console import run_main
from hellm_recbole.system.distributed import refuse_process_group

EXIT_NOTHING_TO_DRAW = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing and write the figures; exit code 0, 1 if a study has nothing to draw, 2 for bad arguments."""
    parser = make_search_parser("study.py", __doc__)
    parser.set_defaults(models="HeLLMPre")
    parser.add_argument("--studies", default="all", help="names separated by commas, or all (%(default)s)")
    options, rest = parser.parse_known_args(argv)
    return run_main(lambda: _study(options, rest))


def _study(options: argparse.Namespace, rest: Sequence[str]) -> int:
    refuse_process_group("study.py")
    overrides = read_overrides(options, rest)
    (seed,) = parse_seeds(str(options.seed))
    tasks: list[SearchTask] = []
    for dataset in parse_names(options.dataset, "--dataset"):
        split = load_data(dataset, options.data_path)[1]
        for config in resolve_runs(
            parse_names(options.models, "--models"), dataset, REGISTRY, options.preset, overrides
        ):
            for name, axes in _chosen(split_variant(config.model, REGISTRY)[0], options.studies).items():
                tasks.append(
                    make_search_task(
                        config,
                        split,
                        axes,
                        overrides,
                        seed,
                        budget=SearchBudget(count_points(axes), None),
                        scheduler="none",
                        search="grid",
                        name=f"{PREFIX}{name}",
                        options=options,
                    )
                )
    drawn = [_drawn(sweep, options.output) for sweep in run_searches(tasks, options)]
    return 0 if all(drawn) else EXIT_NOTHING_TO_DRAW


def _drawn(sweep: SearchResult, output: Path) -> bool:
    """Write the figure of a study and say where it is; whether there was anything to draw."""
    study = draw_study(sweep)
    if study is None:
        print(f"error: {sweep.name} of {sweep.row} has nothing to draw: {sweep.problem}", file=sys.stderr)
        return False
    path = write_figure(output / sweep.dataset / FIGURES, name_figure(sweep), study.figure)
    best = ", ".join(f"{key}={value}" for key, value in sweep.best["values"].items())
    print(f"{study.title}: best {best}; {study.caption} written to {path} and {path.with_suffix('.png')}", flush=True)
    return True


def _chosen(model: str, asked: str) -> dict[str, dict[str, list[object]]]:
    """The studies of a model that were asked for.

    Raises:
        ModelError: one of them is unknown.
        SettingsError: the model has none.
    """
    known = list_studies(model)
    if asked == "all":
        return known
    names = parse_names(asked, "--studies")
    for name in names:
        if name not in known:
            raise ModelError(f"{model} has no study {name!r}; it has {', '.join(known)}")
    return {name: known[name] for name in names}


if __name__ == "__main__":
    sys.exit(main())
