"""Run a model and its variants, and compare them.

python benchmarks/ablate.py --models HeLLMPre --dataset Beauty

Without --models, all models that have variants are run. Two kinds of variants are skipped, with a message: variants
that need a modality that the dataset does not have, and variants that are equal to the model itself because the dataset
has no other modality.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import hellm_recbole.system.openmp  # noqa: F401

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.shared import ALL, ShowList, read_run_request
from hellm_recbole.config.request import RunRequest


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/ablate.py") -> int:
    """Run the models with their variants and print the tables. The exit codes are those of run.py."""
    return run_command(run_with_variants, argv, program, __doc__, takes_settings=True)


@pass_request(read_run_request)
def run_with_variants(request: RunRequest, show_list: ShowList = False) -> int:
    """Run the models of the request and their variants."""
    from hellm_recbole.benchmarks.tasks import overview
    from hellm_recbole.benchmarks.tasks.ablation_models import add_variants
    from hellm_recbole.benchmarks.tasks.comparison import run

    if show_list:
        overview.print_names()
        return 0
    if request.models in ((), (ALL,)):
        request = replace(request, models=overview.list_models_with_variants())
        print(f"all models that have variants are run: {', '.join(request.models)}", file=sys.stderr)
    return run(request, add_variants)


if __name__ == "__main__":
    sys.exit(main())
