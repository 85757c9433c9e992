"""Make the tables and the page from the records alone: `python benchmarks/report.py --dataset Beauty`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from hellm_recbole.config.layers import LARGEST_CUTOFF, shorten
from hellm_recbole.errors import ResultError, SettingsError
from hellm_recbole.experiments.results import RECORD_FILE
from hellm_recbole.report.ablation import print_ablation
from hellm_recbole.report.page import FIGURES, write_report
from hellm_recbole.report.slices import write_slices
from hellm_recbole.report.tables import Protocol, write_tables
from hellm_recbole.system.console import run_main
from hellm_recbole.system.files import check_name, sweep_temporaries


def main(argv: Sequence[str] | None = None) -> int:
    """Write tables, slices and the page of each dataset and print its table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="report.py", description=__doc__)
    parser.add_argument("--dataset", help="names separated by commas; all that have records if not given")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the results (%(default)s)")
    parser.add_argument(
        "--protocol", choices=get_args(Protocol), default="unified", help="which table is printed (%(default)s)"
    )
    parser.add_argument("--metric", help="orders the rows inside a group, such as N@20")
    parser.add_argument("--cutoffs", help="other K than those of the run, such as 1,50; they come from the saved ranks")
    options = parser.parse_args(argv)
    return run_main(lambda: _report(options))


def _report(options: argparse.Namespace) -> int:
    if options.dataset is None:
        datasets = sorted({path.parts[-4] for path in options.output.glob(f"*/*/*/{RECORD_FILE}")})
        if not datasets:
            raise ResultError(
                f"no record in {options.output}; `python benchmarks/run.py --models all --output {options.output}` "
                "makes them"
            )
    else:
        datasets = list(dict.fromkeys(name.strip() for name in options.dataset.split(",") if name.strip()))
        if not datasets:
            raise ResultError("--dataset names nothing; give names separated by commas")
        for name in datasets:
            check_name(name, "dataset")
    cutoffs = None if options.cutoffs is None else _cutoffs(options.cutoffs)
    for dataset in datasets:
        for folder in (options.output / dataset, options.output / dataset / FIGURES):
            sweep_temporaries(folder)
        shown = write_tables(options.output, dataset, options.protocol, metric=options.metric, cutoffs=cutoffs)
        write_slices(options.output, dataset, cutoffs=cutoffs)
        print(shown)
        print_ablation(options.output, dataset)
        page = write_report(options.output, dataset, metric=options.metric, cutoffs=cutoffs)
        print(f"written to {options.output / dataset}; the page is {page}")
    return 0


def _cutoffs(text: str) -> list[int]:
    """The K of `--cutoffs`.

    Raises:
        SettingsError: one of them is not a positive integer, is too large, or occurs twice.
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
