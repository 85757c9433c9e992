"""Prepare, check or export a dataset, or shuffle its ties.

python benchmarks/prepare.py Beauty --from sequences --source DIR
python benchmarks/prepare.py Beauty --from amazon2014 --pictures
python benchmarks/prepare.py Mine --from table --source DIR --columns user=customer
python benchmarks/prepare.py Mine --from table --source DIR --image-dir DIR
python benchmarks/prepare.py Beauty --encoder text_llm=packaged:gemma-3-270m-q4
python benchmarks/prepare.py Beauty --pictures --ray HOST:PORT
python benchmarks/prepare.py Beauty --check --neighbors 10
python benchmarks/prepare.py Mine --card --licence cc-by-4.0
python benchmarks/prepare.py ml-100k --shuffle-ties 1
python benchmarks/prepare.py Beauty --export mmrec --to DIR

A variant with ties shuffled is NAME-tiesSEED: interactions of a user at the same time are in random order in it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hellm_recbole.system.openmp  # noqa: F401

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.prepare import PrepareOptions


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/prepare.py") -> int:
    """Run the command and return its exit code."""
    return run_command(prepare_dataset, argv, program, __doc__)


@pass_request(PrepareOptions)
def prepare_dataset(options: PrepareOptions) -> int:
    """Prepare, check, export or shuffle the dataset, and return the exit code."""
    from hellm_recbole.benchmarks.tasks.preparation import execute

    return execute(options)


if __name__ == "__main__":
    sys.exit(main())
