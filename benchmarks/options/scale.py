"""The options of scale.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from hellm_recbole.benchmarks.options.shared import CpuThreads, DataPath, NoDownload, Version
from hellm_recbole.benchmarks.options.values import parse_dataset, parse_integer


@dataclass(frozen=True, kw_only=True)
class ScaleOptions:
    """What scale.py was asked for. The help of an option says what its field holds."""

    model: Annotated[str, typer.Option("--models", metavar="NAME", help="model of this project")] = "HeLLMPre"
    dataset: Annotated[str, typer.Option(parser=parse_dataset, metavar="NAME", help="dataset to enlarge")] = "Beauty"
    data_path: DataPath = None
    no_download: NoDownload = False
    factors: Annotated[str, typer.Option(metavar="N,N", help="enlargement factors, separated by commas")] = "1,2,4,8"
    batch: Annotated[Literal["grows", "fixed"], typer.Option(help="whether the batch size grows with the data")] = (
        "grows"
    )
    steps: Annotated[
        int, typer.Option(parser=parse_integer, metavar="N", help="number of timed steps, scaled to an epoch")
    ] = 20
    repeat: Annotated[
        int, typer.Option(parser=parse_integer, metavar="N", help="number of timings; the best is reported")
    ] = 5
    threads: CpuThreads = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="value of a setting; the option can be repeated"),
    ] = None
    one: Annotated[int | None, typer.Option(parser=parse_integer, hidden=True)] = None
    version: Version = False
