"""Command-line options of the commands that load a finished run. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.values import parse_path

RunFolder = Annotated[
    Path, typer.Argument(parser=parse_path, metavar="RUN", help="folder of the run: results/DATASET/MODEL/SEED")
]
DatasetFolder = Annotated[
    Path | None,
    typer.Option(
        "--dataset", parser=parse_path, metavar="DIR", help="prepared dataset of the run (default: dataset/NAME)"
    ),
]
FilesOfRun = Annotated[
    list[str] | None,
    typer.Option(
        "--embeddings", metavar="MODEL=FILE", help="file of embeddings that the run has read; can be repeated"
    ),
]
