"""Command-line options of the commands that add extras to finished runs. Nothing here imports torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from hellm_recbole.benchmarks.options.shared import MACHINE, MODELS
from hellm_recbole.benchmarks.options.values import parse_names, parse_path
from hellm_recbole.config.limits import LARGEST_CUTOFF, LARGEST_SEED
from hellm_recbole.errors import SettingsError, shorten

TASKS = ("auc", "hr20")
_CANDIDATES = re.compile(r"(uniform|popularity)[ :]+([0-9]{1,7})")
Models = Annotated[
    str,
    typer.Option(
        metavar="A,B",
        help="models with finished runs, separated by commas, with or without the language model after @; or all",
        rich_help_panel=MODELS,
    ),
]
OneDataset = Annotated[
    str, typer.Option("--dataset", metavar="NAME", help="name of the dataset", rich_help_panel=MODELS)
]
DatasetFolder = Annotated[
    Path | None,
    typer.Option(
        "--dataset-folder",
        parser=parse_path,
        metavar="DIR",
        help="folder of the prepared dataset (default: dataset/NAME)",
        rich_help_panel=MACHINE,
    ),
]
Drawn = Annotated[
    str,
    typer.Option(
        "--candidates",
        metavar="HOW:N,...",
        help="how many items each target is ranked among and how they are drawn, uniform:N or popularity:N; several "
        "are separated by commas",
    ),
]
DrawSeed = Annotated[str | None, typer.Option("--draw-seed", metavar="N", help="random seed of the draw")]
Cutoffs = Annotated[
    str | None,
    typer.Option(metavar="K,K", help="cut-offs K, separated by commas (default: those of the runs)"),
]
Tasks = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="A,B",
        help="auc (AUC and user AUC on ratings, as CoLLM), hr20 (hit ratio among 20 items, as LLaRA), or both",
    ),
]
HeldOutItems = Annotated[
    Literal["test", "both"],
    typer.Option(
        "--held-out",
        help="rated items of auc: test items with the history of the test phase, or validation and test items with the "
        "training history, which gives each user of leave-one-out two items",
    ),
]


def parse_candidates(text: str) -> list[tuple[Literal["uniform", "popularity"], int]]:
    """Parse the value of `--candidates`: distributions and numbers.

    Raises:
        SettingsError: a value is not HOW:N, N is out of range, or a value occurs twice.

    >>> parse_candidates("uniform 100, popularity:50")
    [('uniform', 100), ('popularity', 50)]
    """
    found: list[tuple[Literal["uniform", "popularity"], int]] = []
    for part in text.split(","):
        match = _CANDIDATES.fullmatch(part.strip())
        if match is None or not 1 <= int(match[2]) <= LARGEST_CUTOFF:
            raise SettingsError(
                f"--candidates {shorten(text)!r} is not understood; write uniform:100 or popularity:100, with a number "
                f"from 1 to {LARGEST_CUTOFF:,}"
            )
        found.append(("uniform" if match[1] == "uniform" else "popularity", int(match[2])))
    if len(set(found)) < len(found):
        raise SettingsError(f"--candidates {shorten(text)!r} names one choice twice; name each once")
    return found


def parse_draw_seed(text: str) -> int:
    """Parse the value of `--draw-seed`.

    Raises:
        SettingsError: it is not a whole number, or is out of range.
    """
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) > LARGEST_SEED:
        raise SettingsError(f"--draw-seed {shorten(text)!r} must be a whole number from 0 to {LARGEST_SEED}")
    return int(text)


def parse_tasks(text: str) -> tuple[str, ...]:
    """Parse the names of `--task`.

    Raises:
        SettingsError: a name is unknown.
    """
    tasks = parse_names(text, "--task")
    for name in tasks:
        if name not in TASKS:
            raise SettingsError(f"--task {shorten(name)!r} is unknown; it can be {', '.join(TASKS)} or both")
    return tuple(tasks)
