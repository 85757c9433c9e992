"""Say what each modality brings to multimodal models.

The models are trained on true and on changed item features.

python benchmarks/audit.py --models VBPR,FREEDOM --dataset TikTok
python benchmarks/audit.py --models VBPR --dataset TikTok --changes shuffled

For each modality that a model reads, its features are shuffled among the items, set to zero, or replaced by noise with
the same mean and deviation. Without --models, all models that read item features are run.
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
from hellm_recbole.benchmarks.options.values import parse_changes
from hellm_recbole.config.changed_names import CHANGES
from hellm_recbole.config.request import RunRequest

EVERY_CHANGE = ",".join(CHANGES)
Changes = Annotated[
    str, typer.Option(metavar="A,B", help=f"changes of the features, of {', '.join(CHANGES)} (default: all of them)")
]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/audit.py") -> int:
    """Run the models with true and changed features and print the tables. The exit codes are those of run.py."""
    return run_command(audit_models, argv, program, __doc__, takes_settings=True)


@pass_request(read_run_request)
def audit_models(request: RunRequest, changes: Changes = EVERY_CHANGE, show_list: ShowList = False) -> int:
    """Run the models of the request with true and with changed features."""
    chosen = parse_changes(changes)
    from hellm_recbole.benchmarks.tasks import overview
    from hellm_recbole.benchmarks.tasks.audit_models import add_changed_rows, list_audited_models
    from hellm_recbole.benchmarks.tasks.comparison import run

    if show_list:
        overview.print_names()
        return 0
    names_all = request.models in ((), (ALL,))
    if names_all:
        request = replace(request, models=list_audited_models(request))
    return run(request, partial(add_changed_rows, request, chosen, skips=names_all))


if __name__ == "__main__":
    sys.exit(main())
