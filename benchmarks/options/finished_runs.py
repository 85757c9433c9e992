"""Command-line options of the commands that load a finished run. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.values import parse_path
from hellm_recbole.hub.names import is_hub_name

RunFolder = Annotated[
    Path, typer.Argument(parser=parse_path, metavar="RUN", help="folder of the run: results/DATASET/MODEL/SEED")
]


def parse_run(text: str | Path) -> str:
    """Parse the folder of a run, or the name of a repository of the hub that holds one.

    Raises:
        typer.BadParameter: the name is empty.
    """
    return text if isinstance(text, str) and is_hub_name(text) else str(parse_path(text))


RunOrHub = Annotated[
    str,
    typer.Argument(
        parser=parse_run,
        metavar="RUN",
        help="folder of the run: results/DATASET/MODEL/SEED; or hub:ORG/NAME, a run of the Hugging Face hub",
    ),
]
LanguageModel = Annotated[
    str | None,
    typer.Option(
        "--llm", metavar="DIR", help="folder or file of the run's language model, if it is in another place now"
    ),
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
