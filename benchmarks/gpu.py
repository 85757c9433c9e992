"""Measure what depends on a GPU, and write one table.

python benchmarks/gpu.py --output build/gpu
python benchmarks/gpu.py --device cpu

It takes a few minutes and needs no network. Parts: the tests marked `gpu`; the peak memory of training each row with a
language model, against the prediction of `run --dry-run`; epoch and ranking of all rows in float32, with TF32 and in
bfloat16; two processes that train one model on one device; torch.compile. The data is the synthetic shop, enlarged to
the size of Beauty.

The table (`table.md`, `table.csv`) is written again after each measured line, so it is complete up to where the command
was stopped. What fails, or takes too long, is a line of the table, and the rest goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hellm_recbole.system.openmp  # noqa: F401

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.gpu import GpuOptions


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/gpu.py") -> int:
    """Measure, write the table, and return the exit code."""
    return run_command(measure_gpu, argv, program, __doc__)


@pass_request(GpuOptions)
def measure_gpu(options: GpuOptions) -> int:
    """Measure all parts in processes of their own, or the cases of a file in this process."""
    if options.worker is not None:
        from hellm_recbole.benchmarks.tasks.gpu_cases import measure_cases

        measure_cases(options.worker)
        return 0
    from hellm_recbole.benchmarks.tasks.gpu_parts import measure_parts

    return measure_parts(options)


if __name__ == "__main__":
    sys.exit(main())
