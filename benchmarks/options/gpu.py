"""The options of gpu.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.shared import Version
from hellm_recbole.benchmarks.options.values import parse_integer, parse_path

PARTS = ("tests", "memory", "times", "processes", "compile")  # in this order
RANDOM = "random"  # value of --llm for a model with random weights that is made on the spot
FOUND = "found"  # value of --llm for the packaged model where it is installed, else a random one


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """What gpu.py was asked for. The help of an option says what its field holds."""

    output: Annotated[Path, typer.Option(parser=parse_path, metavar="DIR", help="folder of the table")] = Path(
        "build/gpu"
    )
    device: Annotated[
        str,
        typer.Option(metavar="NAME", help="auto (the first GPU), cuda:N, or cpu: the same on small data, as a trial"),
    ] = "auto"
    parts: Annotated[str, typer.Option(metavar="A,B", help=f"parts, separated by commas: {', '.join(PARTS)}")] = (
        ",".join(PARTS)
    )
    models: Annotated[str, typer.Option(metavar="NAME,NAME", help="rows to measure, separated by commas, or all")] = (
        "all"
    )
    llm: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"language model: a local folder, auto (the packaged one), {RANDOM} (made on the spot), or {FOUND} "
            f"(auto where its package is installed, else {RANDOM})",
        ),
    ] = FOUND
    minutes: Annotated[int, typer.Option(parser=parse_integer, metavar="N", help="time limit of the whole")] = 8
    row_seconds: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer, metavar="N", help="time limit of one row in one part (default: 60; 300 on a CPU)"
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(parser=parse_integer, metavar="N", help="number of timed steps (default: 20; 2 on a CPU)"),
    ] = None
    users: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer,
            metavar="N",
            help="number of users whose ranking is timed and scaled to all (default: 4096; 64 on a CPU)",
        ),
    ] = None
    branches: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer,
            metavar="N",
            help="size of the data, in copies of 448 users and 240 items (default: 50, as large as Beauty; 1 on a CPU)",
        ),
    ] = None
    worker: Annotated[Path | None, typer.Option(parser=parse_path, hidden=True)] = None
    version: Version = False
