"""Write the tables and the HTML page from stored run results: `python benchmarks/report.py --dataset Beauty`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from hellm_recbole.config.limits import LARGEST_CUTOFF
from hellm_recbole.config.request import Protocol
from hellm_recbole.errors import ResultError, SettingsError, shorten
from hellm_recbole.experiments.results import RECORD_FILE
from hellm_recbole.report.files import write_reports
from hellm_recbole.report.page import PAGE_FILE
from hellm_recbole.report.page_figures import FIGURES
from hellm_recbole.system.console import run_main
from hellm_recbole.system.files import check_name, remove_leftovers


def main(argv: Sequence[str] | None = None) -> int:
    """Write tables, slices and the page of each dataset, print its table, and return the exit code."""
    parser = argparse.ArgumentParser(prog="report.py", description=__doc__)
    parser.add_argument("--dataset", help="dataset names separated by commas (default: all datasets with results)")
    parser.add_argument(
        "--output", type=Path, default=Path("results"), help="folder of the results (default: %(default)s)"
    )
    parser.add_argument(
        "--protocol",
        choices=get_args(Protocol),
        default="unified",
        help="evaluation protocol of the printed table (default: %(default)s)",
    )
    parser.add_argument("--metric", help="metric that sorts the models of a group, for example N@20")
    parser.add_argument(
        "--cutoffs",
        help="cut-offs K, separated by commas, for example 1,50; the metrics are computed from the saved ranks",
    )
    options = parser.parse_args(argv)
    return run_main(lambda: _write_reports(options))


def _write_reports(options: argparse.Namespace) -> int:
    """Write and print the report of each dataset.

    Raises:
        ResultError: there are no results, or no dataset is named.
        SettingsError: an option is invalid.
    """
    if options.dataset is None:
        datasets = sorted({path.parts[-4] for path in options.output.glob(f"*/*/*/{RECORD_FILE}")})
        if not datasets:
            raise ResultError(
                f"no record in {options.output}; run `python benchmarks/run.py --models all --output {options.output}` "
                "first"
            )
    else:
        datasets = list(dict.fromkeys(name.strip() for name in options.dataset.split(",") if name.strip()))
        if not datasets:
            raise ResultError("--dataset names nothing; give names separated by commas")
        for name in datasets:
            check_name(name, "dataset")
    cutoffs = None if options.cutoffs is None else _parse_cutoffs(options.cutoffs)
    for dataset in datasets:
        for folder in (options.output / dataset, options.output / dataset / FIGURES):
            remove_leftovers(folder)
        print(
            write_reports(options.output, dataset, options.protocol, metric=options.metric, cutoffs=cutoffs, page=True)
        )
        print(f"written to {options.output / dataset}; the page is {options.output / dataset / PAGE_FILE}")
    return 0


def _parse_cutoffs(text: str) -> list[int]:
    """Parse the values K of `--cutoffs`.

    Raises:
        SettingsError: a value is not a positive integer, is too large, or occurs twice.
    """
    parts = text.split(",")
    if not all(re.fullmatch(r"\s*[0-9]{1,7}\s*", part) and 0 < int(part) <= LARGEST_CUTOFF for part in parts):
        raise SettingsError(
            f"--cutoffs {shorten(text)!r} must be positive integers separated by commas, such as 1,50, and at most "
            f"{LARGEST_CUTOFF:,}"
        )
    cutoffs = [int(part) for part in parts]
    if len(set(cutoffs)) < len(cutoffs):
        raise SettingsError(f"--cutoffs {shorten(text)!r} names one K twice; name each once")
    return cutoffs


if __name__ == "__main__":
    sys.exit(main())
