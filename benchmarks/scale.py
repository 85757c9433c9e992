"""Measure time and memory as the data grows.

python benchmarks/scale.py --models HeLLMPre --dataset Beauty

The dataset is enlarged with copies. Factor f makes f copies of each user and item, and each interaction of a copied
user is connected to a random copy of its item. Users keep their degrees, and items keep theirs on average. Each factor
is measured in its own process, so that it has its own peak memory. The best of several timings is reported, because
other programs on the machine slow down memory access, and larger data depend more on it.

Each step of a graph model propagates over the whole graph. With `--batch grows` the batch size grows by the same factor
as the data: an epoch keeps its number of steps, and its cost grows linearly with the number of interactions. With
`--batch fixed` the number of steps also grows, and the cost grows quadratically. With `--set batch_size=auto` the batch
size is the one that a run would take.

Ranking is the CPU time of ranking one target for each of 2,000 users among all items, with the encoding before it; its
ratio to the product of the same vectors alone stands beside it. The peak memory is that of training.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hellm_recbole.system.openmp  # noqa: F401

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.scale import ScaleOptions


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/scale.py") -> int:
    """Print the table and return the exit code."""
    return run_command(measure_scale, argv, program, __doc__)


@pass_request(ScaleOptions)
def measure_scale(options: ScaleOptions) -> int:
    """Measure all factors in processes of their own, or one factor in this process."""
    from hellm_recbole.benchmarks.tasks.scaling import measure_all, measure_factor

    if options.one is None:
        measure_all(options)
    else:
        measure_factor(options, options.one)
    return 0


if __name__ == "__main__":
    sys.exit(main())
