"""The options of speed.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from hellm_recbole.benchmarks.options.shared import CpuThreads, DataPath, NoDownload, Version
from hellm_recbole.benchmarks.options.values import parse_dataset, parse_integer
from hellm_recbole.benchmarks.upstream.checkouts import MMRec, Released

PARTS = ("evaluation", "lightgcn", "sasrec", "hellmpre", "multimodal", "llm")
DEFAULT_PARTS = PARTS[:3]  # the others need a checkout of published code, or a language model
Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """What speed.py was asked for. The help of an option says what its field holds."""

    dataset: Annotated[
        str, typer.Option(parser=parse_dataset, metavar="NAME", help="dataset with a leave-one-out split")
    ] = "Beauty"
    data_path: DataPath = None
    no_download: NoDownload = False
    parts: Annotated[
        str, typer.Option(metavar="A,B", help=f"parts to time, separated by commas: {', '.join(PARTS)}")
    ] = ",".join(DEFAULT_PARTS)
    repeat: Annotated[
        int, typer.Option(parser=parse_integer, metavar="N", help="number of repetitions; the best is reported")
    ] = 3
    steps: Annotated[
        int,
        typer.Option(
            parser=parse_integer,
            metavar="N",
            help="number of timed steps of RecBole's SASRec, of MMRec's models and of the part llm, scaled to an epoch",
        ),
    ] = 8
    threads: CpuThreads = None
    released: Released = None
    contrast_dtype: Annotated[
        Dtype,
        typer.Option(
            help="for the part hellmpre: data type of our products in the contrast of all nodes",
        ),
    ] = "float32"
    mmrec: MMRec = None
    llm: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="for the part llm: language model, a Hugging Face id, a folder or a GGUF file",
        ),
    ] = "auto"
    llm_layers: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer,
            metavar="N",
            help="for the part llm: number of first layers of the language model to keep (default: all)",
        ),
    ] = None
    llm_dtype: Annotated[
        Dtype, typer.Option(help="for the part llm: data type of the language model, on both sides")
    ] = "float32"
    version: Version = False
