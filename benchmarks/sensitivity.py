"""Show how metrics change under other masks and ties.

python benchmarks/sensitivity.py --models LightGCN,SASRec --dataset ml-100k --preset quick
python benchmarks/sensitivity.py --models LightGCN,SASRec --dataset ml-100k --preset quick --shuffle-ties 3
python benchmarks/sensitivity.py --models LightGCN,SASRec --dataset Beauty --from results/published

Models that have not finished are run first, as run.py does. With --shuffle-ties N, they are trained again on N copies
of the dataset in which interactions of one user at one time stand in a random order. The table has each change with a
paired interval. It is printed and written to `results/<dataset>/sensitivity.md` and `.csv`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hellm_recbole.system.openmp  # noqa: F401

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.sensitivity import SensitivityRequest, read_sensitivity_request
from hellm_recbole.errors import ModelError


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/sensitivity.py") -> int:
    """Print the table of each dataset. The exit code is 0, 1 if a run failed, or 2 if an input is invalid."""
    return run_command(measure_sensitivity, argv, program, __doc__, takes_settings=True)


@pass_request(read_sensitivity_request)
def measure_sensitivity(request: SensitivityRequest) -> int:
    """Measure and print the sensitivity of the models of the request.

    Raises:
        ModelError: no model is named.
    """
    if not request.run.models:
        raise ModelError("name the models to measure with --models, for example --models LightGCN,SASRec")
    from hellm_recbole.benchmarks.tasks.sensitivity import measure

    return measure(request)


if __name__ == "__main__":
    sys.exit(main())
