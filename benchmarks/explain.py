"""Explain the id of a number, or how two numbers differ.

python benchmarks/explain.py LOO-7f3a91
python benchmarks/explain.py LOO-7f3a91 LOO-0c52d8
python benchmarks/explain.py LOO-7f3a91 --from results/dropout

The ids are in the column id of table.csv, on the page, and in tables of hellm-recbole report --ids.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import hellm_recbole.system.openmp  # noqa: F401

import typer

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.shared import Properties, Version
from hellm_recbole.benchmarks.options.values import parse_cutoffs, parse_path

FOLDERS = (Path("results"), Path("results/published"))
Id = Annotated[str, typer.Argument(metavar="ID", help="id of a number, such as LOO-7f3a91")]
OtherId = Annotated[str | None, typer.Argument(metavar="[ID]", help="id of a number to compare it with")]
Source = Annotated[
    Path | None,
    typer.Option(
        "--from",
        parser=parse_path,
        metavar="DIR",
        help=f"folder of the results to search (default: {' and '.join(map(str, FOLDERS))})",
    ),
]
Cutoffs = Annotated[
    str | None, typer.Option(metavar="K,K", help="cut-offs K of the table, if it was made with --cutoffs")
]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/explain.py") -> int:
    """Explain a number or compare two. The exit code is 0, or 2 if an input is invalid."""
    return run_command(explain_ids, argv, program, __doc__)


def explain_ids(
    number: Id,
    other: OtherId = None,
    source: Source = None,
    cutoffs: Cutoffs = None,
    properties: Properties = None,
    version: Version = False,
) -> int:
    """Print what a number depends on, or how two numbers differ.

    Raises:
        HellmError: an id is unknown, or is that of several numbers.
    """
    values = None if cutoffs is None else parse_cutoffs(cutoffs)
    from hellm_recbole.benchmarks.tasks.explaining import explain

    print(explain([number, *([] if other is None else [other])], FOLDERS if source is None else (source,), values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
