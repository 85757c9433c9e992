"""Options of the commands that execute several runs: how many at once, where they are kept, where their time went."""

from __future__ import annotations

from typing import Annotated

import typer

AUTO = "auto"
Jobs = Annotated[
    str,
    typer.Option(
        "--jobs",
        metavar="auto|N",
        help="number of runs to execute side by side on this machine; they share the threads (auto: one for each "
        "thread; 1: one after another, each with all threads)",
        rich_help_panel="Machine and folders",
    ),
]
Timings = Annotated[
    bool,
    typer.Option(
        "--timings",
        help="also print and write where the time of the rows went: building, training, validation, test",
        rich_help_panel="Runs and tables",
    ),
]
StorageURI = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URI",
        help="folder or bucket that all machines reach (file:///FOLDER or s3://BUCKET/FOLDER), no shared disk needed: "
        "prepared data and earlier runs are fetched from it, and runs are handed back to it",
        rich_help_panel="Machine and folders",
    ),
]
