"""Run models on datasets and print the comparison table.

python benchmarks/run.py --models all --dataset ml-100k --preset quick
python benchmarks/run.py --models LightGCN,SASRec --dataset Beauty --seeds 1,2
python benchmarks/run.py --models SASRec --dataset Beauty --set dropout=0.5
python benchmarks/run.py --help-model SASRec

Finished runs are not repeated, and a run that was stopped is resumed. The exit code is 0, 1 if a run failed, or 2 if an
input is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import hellm_recbole.system.openmp  # noqa: F401

import typer

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.shared import ALL, ShowList, read_run_request
from hellm_recbole.config.request import RunRequest
from hellm_recbole.errors import ModelError

HelpModel = Annotated[
    str | None,
    typer.Option(
        "--help-model", metavar="MODEL", help="print the settings of a model, with values and meanings, then exit"
    ),
]
SettingsSchema = Annotated[
    str | None,
    typer.Option("--settings-schema", metavar="MODEL", help="print the JSON schema of a model's settings, then exit"),
]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/run.py") -> int:
    """Run the models and print the tables. The exit code is 0, 1 if a run failed, or 2 if an input is invalid."""
    return run_command(run_models, argv, program, __doc__, takes_settings=True)


@pass_request(read_run_request)
def run_models(
    request: RunRequest,
    show_list: ShowList = False,
    help_model: HelpModel = None,
    settings_schema: SettingsSchema = None,
) -> int:
    """Run the models of the request, or print what is known about the models.

    Raises:
        ModelError: no model is named.
    """
    from hellm_recbole.benchmarks.tasks import overview

    if show_list:
        overview.print_names()
        return 0
    if help_model is not None or settings_schema is not None:
        from hellm_recbole.benchmarks.tasks.model_help import print_model_help, print_settings_schema

        if help_model is not None:
            print_model_help(help_model, request)
        if settings_schema is not None:
            print_settings_schema(settings_schema)
        return 0
    if not request.models:
        overview.print_overview()
        raise ModelError("name the models to run with --models, for example --models all or --models LightGCN,SASRec")
    from hellm_recbole.benchmarks.tasks.all_models import leave_out_models
    from hellm_recbole.benchmarks.tasks.comparison import run

    if request.models != (ALL,):
        return run(request)
    request = replace(request, models=overview.ALL_MODELS)
    return run(request, partial(leave_out_models, request))


if __name__ == "__main__":
    sys.exit(main())
