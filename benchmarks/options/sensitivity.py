"""Command-line options of sensitivity.py. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.shared import (
    RUNS,
    Config,
    CpuThreads,
    DataPath,
    Datasets,
    DataSplit,
    Device,
    EmbeddingFiles,
    LanguageModel,
    LanguageModelLayers,
    Models,
    NoDownload,
    Output,
    Preset,
    Properties,
    Seeds,
    Settings,
    Version,
    read_run_request,
)
from hellm_recbole.benchmarks.options.values import parse_cutoffs, parse_integer, parse_path
from hellm_recbole.config.request import RunRequest
from hellm_recbole.errors import SettingsError

MOST_ORDERS = 100
Source = Annotated[
    Path | None,
    typer.Option(
        "--from",
        parser=parse_path,
        metavar="DIR",
        help="folder of finished runs that are only read, for example results/published; nothing is trained then, and "
        "the tie rule is left out",
        rich_help_panel=RUNS,
    ),
]
Orders = Annotated[
    int,
    typer.Option(
        "--shuffle-ties",
        parser=parse_integer,
        metavar="N",
        help="number of random orders of interactions at equal times (seeds 1 to N); models are trained again on each",
        rich_help_panel=RUNS,
    ),
]
Cutoffs = Annotated[
    str | None,
    typer.Option(
        metavar="K,K", help="cut-offs K, separated by commas (default: those of the runs)", rich_help_panel=RUNS
    ),
]


@dataclass(frozen=True)
class SensitivityRequest:
    """Request to measure how far numbers move under other rules.

    Attributes:
        run: models, data, settings and machine.
        source: folder of finished runs that are only read; None runs the models if they have not finished.
        n_orders: number of random orders of ties in time.
        cutoffs: cut-offs K; None takes those of the runs.
    """

    run: RunRequest
    source: Path | None
    n_orders: int
    cutoffs: list[int] | None


def read_sensitivity_request(
    context: typer.Context,
    models: Models = None,
    dataset: Datasets = "ml-100k",
    split: DataSplit = None,
    preset: Preset = "paper",
    settings: Settings = None,
    llm: LanguageModel = None,
    llm_layers: LanguageModelLayers = None,
    embeddings: EmbeddingFiles = None,
    seeds: Seeds = "2024",
    cutoffs: Cutoffs = None,
    shuffle_ties: Orders = 0,
    source: Source = None,
    device: Device = "auto",
    threads: CpuThreads = None,
    data_path: DataPath = None,
    no_download: NoDownload = False,
    output: Output = Path("results"),
    config: Config = None,
    properties: Properties = None,
    version: Version = False,
) -> SensitivityRequest:
    """Make the request from the options.

    Raises:
        HellmError: the value of an option is wrong.
    """
    if not 0 <= shuffle_ties <= MOST_ORDERS:
        raise SettingsError(f"--shuffle-ties {shuffle_ties}: the number of orders must be from 0 to {MOST_ORDERS}")
    if source is not None and shuffle_ties:
        raise SettingsError(
            "--shuffle-ties trains models again, but --from only reads finished runs; use one of the two"
        )
    run = read_run_request(
        context,
        models,
        dataset,
        split,
        preset,
        settings,
        llm,
        llm_layers,
        embeddings,
        seeds,
        device=device,
        threads=threads,
        data_path=data_path,
        no_download=no_download,
        output=output,
    )
    return SensitivityRequest(run, source, shuffle_ties, None if cutoffs is None else parse_cutoffs(cutoffs))
