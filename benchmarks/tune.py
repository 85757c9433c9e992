"""Search settings with Ray Tune.

python benchmarks/tune.py --models HeLLMPre --dataset Beauty --budget trials=20
python benchmarks/tune.py --models all --dataset Beauty --budget minutes=60

Without --models, all models that have a search space are searched. Every model gets the same budget. Trials get only
the training and validation parts. The best values of each model are written to `results/<dataset>/tuned/`, and `run.py
--tuned` reads them there.
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
from hellm_recbole.config.request import SchedulerName, SearchBudget, SearchName, SearchRequest
from hellm_recbole.system.files import check_name

EXIT_NOTHING_FOUND = 1
Budget = Annotated[
    str,
    typer.Option(
        metavar="KIND=N",
        help="budget of the search of each model, such as trials=20 or minutes=60",
        rich_help_panel=SEARCH,
    ),
]
Scheduler = Annotated[
    SchedulerName,
    typer.Option(help="scheduler of the trials; asha stops poor trials early", rich_help_panel=SEARCH),
]
Search = Annotated[SearchName, typer.Option(help="method that chooses the values", rich_help_panel=SEARCH)]
Spaces = Annotated[
    list[str] | None,
    typer.Option(
        "--space",
        metavar="[MODEL.]KEY=[A,B]",
        help="values to try instead of those in the search space; [] excludes a setting",
        rich_help_panel=SEARCH,
    ),
]
Only = Annotated[
    str | None,
    typer.Option(metavar="KEY,KEY", help="settings to search; all others keep their values", rich_help_panel=SEARCH),
]
Name = Annotated[
    str,
    typer.Option(metavar="NAME", help="name of the search, for a model with several searches", rich_help_panel=SEARCH),
]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/tune.py") -> int:
    """Run the searches and print the trials. The exit code is 0, 1 if a search failed, or 2 if an input is invalid."""
    return run_command(tune_models, argv, program, __doc__, takes_settings=True)


@pass_request(read_search_request)
def tune_models(
    request: SearchRequest,
    budget: Budget = "trials=20",
    scheduler: Scheduler = "asha",
    search: Search = "random",
    space: Spaces = None,
    only: Only = None,
    name: Name = "tune",
) -> int:
    """Set up and run the searches, and return the exit code."""
    from hellm_recbole.benchmarks.tasks.search_spaces import list_tunable_models, parse_spaces
    from hellm_recbole.benchmarks.tasks.tuning_tasks import make_tuning_tasks, report_outcome
    from hellm_recbole.experiments.tuning import run_searches
    from hellm_recbole.system.distributed import refuse_process_group

    refuse_process_group("hellm-recbole tune")
    check_name(name, "--name")
    if request.models in ((), (ALL,)):
        request = replace(request, models=list_tunable_models())
    tasks = make_tuning_tasks(
        request,
        parse_spaces(space or [], request.models),
        only,
        budget=SearchBudget.parse(budget),
        scheduler=scheduler,
        search=search,
        name=name,
    )
    succeeded = [report_outcome(result, request.output) for result in run_searches(tasks, request)]
    return 0 if all(succeeded) else EXIT_NOTHING_FOUND


if __name__ == "__main__":
    sys.exit(main())
