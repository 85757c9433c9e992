"""Run and draw hyper-parameter studies of a model.

python benchmarks/study.py --models HeLLMPre --dataset TikTok

Without --models, the studies of HeLLMPre are run. A study is a grid search over one or two settings. All other settings
keep the values of the settings files. The figure shows the validation metric, never a test metric. The values are in
`properties/study/<Model>.yaml`. A study that has finished before is only drawn again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import hellm_recbole.system.openmp  # noqa: F401

import typer

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.shared import ALL, SEARCH, read_search_request
from hellm_recbole.config.request import SearchRequest

DEFAULT_MODELS = ("HeLLMPre",)
EXIT_NOTHING_TO_DRAW = 1
Studies = Annotated[
    str,
    typer.Option(metavar="A,B", help="names of the studies, separated by commas, or all", rich_help_panel=SEARCH),
]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/study.py") -> int:
    """Run and draw the studies. The exit code is 0, 1 if a study has nothing to draw, or 2 if an input is invalid."""
    return run_command(run_studies, argv, program, __doc__, takes_settings=True)


@pass_request(read_search_request)
def run_studies(request: SearchRequest, studies: Studies = ALL) -> int:
    """Set up, run and draw the studies, and return the exit code."""
    from hellm_recbole.benchmarks.tasks.studies import draw_result, make_study_tasks
    from hellm_recbole.experiments.tuning import run_searches
    from hellm_recbole.system.distributed import refuse_process_group

    refuse_process_group("hellm-recbole study")
    tasks = make_study_tasks(replace(request, models=request.models or DEFAULT_MODELS), studies)
    drawn = [draw_result(result, request.output) for result in run_searches(tasks, request)]
    return 0 if all(drawn) else EXIT_NOTHING_TO_DRAW


if __name__ == "__main__":
    sys.exit(main())
