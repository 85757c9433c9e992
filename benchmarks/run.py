"""Run models on datasets and print the comparison table: `python benchmarks/run.py --models all --dataset Beauty`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hellm_recbole.system.openmp  # noqa: F401

from benchmarks.comparison import run
from benchmarks.options import ALL_MODELS, make_run_parser, print_names, read_run_request
from hellm_recbole.system.console import run_main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the models and print the tables. The exit code is 0, 1 if a run failed, or 2 if an input is invalid."""
    options, rest = make_run_parser("run.py", __doc__).parse_known_args(argv)
    if options.list:
        return run_main(print_names)
    return run_main(lambda: run(read_run_request(options, rest, ALL_MODELS)))


if __name__ == "__main__":
    sys.exit(main())
