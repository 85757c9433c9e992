"""Publish finished runs in a small form, or check them.

python benchmarks/publish.py --dataset Beauty
python benchmarks/publish.py --dataset Beauty --models HeLLM,SASRec
python benchmarks/publish.py --check --dataset Beauty

A published run is small enough for a repository: it has its result, its settings and its ranks, without checkpoints,
tokens and paths of the machine. With --check, published runs are compared with the prepared dataset: its split, its
candidates, and the metrics of the ranks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.shared import ALL, DataPath, NoDownload, Output, Version
from hellm_recbole.benchmarks.options.values import parse_datasets, parse_models, parse_path
from hellm_recbole.errors import SettingsError

PublishedDatasets = Annotated[str, typer.Option("--dataset", metavar="A,B", help="dataset names separated by commas")]
PublishedModels = Annotated[
    str,
    typer.Option(
        metavar="A,B",
        help="models or rows of the table, separated by commas, or all: the finished runs of all models",
    ),
]
To = Annotated[Path, typer.Option(parser=parse_path, metavar="DIR", help="folder of the published runs")]
Check = Annotated[
    bool, typer.Option("--check", help="compare published runs with the prepared dataset, and write nothing")
]
FreshPublication = Annotated[bool, typer.Option("--fresh", help="replace published runs that differ")]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/publish.py") -> int:
    """Publish or check runs. The exit code is 0, 1 if a checked run disagrees, or 2 if an input is invalid."""
    return run_command(publish_results, argv, program, __doc__, after_stop="give the same command again")


def publish_results(
    dataset: PublishedDatasets,
    models: PublishedModels = ALL,
    to: To = Path("results/published"),
    check: Check = False,
    fresh: FreshPublication = False,
    data_path: DataPath = None,
    no_download: NoDownload = False,
    output: Output = Path("results"),
    version: Version = False,
) -> int:
    """Publish or check the runs of each dataset, and return the exit code."""
    datasets, named = parse_datasets(dataset), parse_models(models)
    names = None if named == (ALL,) else named
    if check and fresh:
        raise SettingsError("--check and --fresh contradict each other; use only one of them")
    from hellm_recbole.benchmarks.tasks import publishing

    if check:
        return publishing.check_runs(to, datasets, names, data_path, may_download=not no_download)
    publishing.publish_runs(output, to, datasets, names, fresh=fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
