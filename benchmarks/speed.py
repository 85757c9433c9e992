"""Time this project and others on the same data.

python benchmarks/speed.py --dataset Beauty
python benchmarks/speed.py --parts multimodal --mmrec DIR

Each figure is the best of several repetitions. The two sides run alternately (ours, RecBole's, ours, ...) in one
process, with the same threads and the same allocator settings. Quote the ratios, because absolute times depend on the
machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hellm_recbole.system.openmp  # noqa: F401

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.speed import SpeedOptions


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/speed.py") -> int:
    """Print the times and the ratios, and return the exit code."""
    return run_command(measure_speed, argv, program, __doc__)


@pass_request(SpeedOptions)
def measure_speed(options: SpeedOptions) -> int:
    """Time the parts and print the table."""
    from hellm_recbole.benchmarks.tasks.speed_table import print_times

    print_times(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
