"""Checkouts of public code: where the code is published, and how a folder is recognized as a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.values import parse_path
from hellm_recbole.errors import DataError

MMREC = "https://github.com/enoche/MMRec"
MMHCL = "https://github.com/Xu107/MMHCL"
HELLM = "https://github.com/Xu107/HeLLM"
BSAREC = "https://github.com/yehjin-shin/BSARec"
MMRec = Annotated[
    Path | None, typer.Option(parser=parse_path, metavar="DIR", help=f"folder with a checkout of {MMREC}")
]
Released = Annotated[
    Path | None, typer.Option(parser=parse_path, metavar="DIR", help=f"folder with a checkout of {MMHCL}")
]
HeLLMCode = Annotated[
    Path | None, typer.Option("--hellm", parser=parse_path, metavar="DIR", help=f"folder with a checkout of {HELLM}")
]
BSARecCode = Annotated[
    Path | None, typer.Option("--bsarec", parser=parse_path, metavar="DIR", help=f"folder with a checkout of {BSAREC}")
]


def find_file(checkout: Path, file: str, url: str) -> Path:
    """Return the path of a file in a checkout.

    Args:
        checkout: folder with the checkout.
        file: path of the file in the repository.
        url: address of the repository.

    Raises:
        DataError: the folder does not exist, or does not hold the file.
    """
    if not checkout.is_dir():
        raise DataError(f"{checkout} does not exist or is no folder; run `git clone {url}` and pass its folder")
    if not (checkout / file).is_file():
        raise DataError(f"{checkout} holds no {file}; pass a checkout of {url}")
    return checkout / file
