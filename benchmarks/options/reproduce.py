"""The options of reproduce.py. Nothing here imports torch, Ray or pandas, so that `--help` is fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.jobs import AUTO, Jobs
from hellm_recbole.benchmarks.options.shared import (
    MODELS,
    RUNS,
    SEARCH,
    Config,
    DataPath,
    Device,
    LanguageModel,
    LanguageModelLayers,
    NoDownload,
    Output,
    Preset,
    Properties,
    Ray,
    Seeds,
    Settings,
    Threads,
    Version,
)
from hellm_recbole.benchmarks.options.values import (
    check_threads,
    parse_datasets,
    parse_jobs,
    parse_seeds,
    read_overrides,
)
from hellm_recbole.config.paper_experiments import read_experiments
from hellm_recbole.config.request import RunRequest

Name = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="; ".join(f"{name}: {experiment.title}" for name, experiment in read_experiments().items()),
    ),
]
Datasets = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="A,B",
        help="dataset names separated by commas (default: Beauty; for table2 all prepared datasets)",
        rich_help_panel=MODELS,
    ),
]
Studies = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="studies of a figure, separated by commas, such as neighbors,width (default: all of the figure)",
        rich_help_panel=SEARCH,
    ),
]
ShowPlan = Annotated[
    bool,
    typer.Option("--plan", help="print which runs are there, which are missing and how long they take, then exit"),
]
OnlyFinished = Annotated[
    bool,
    typer.Option("--only-finished", help="make the table or figure of the finished runs, without running anything"),
]
FreshExperiment = Annotated[
    bool,
    typer.Option(
        "--fresh",
        help="delete the earlier runs or studies of the experiment and run them from scratch",
        rich_help_panel=RUNS,
    ),
]


def read_reproduce_request(
    context: typer.Context,
    dataset: Datasets = None,
    preset: Preset = "paper",
    settings: Settings = None,
    llm: LanguageModel = None,
    llm_layers: LanguageModelLayers = None,
    seeds: Seeds = "2024",
    fresh: FreshExperiment = False,
    ray: Ray = None,
    jobs: Jobs = AUTO,
    device: Device = "auto",
    threads: Threads = None,
    data_path: DataPath = None,
    no_download: NoDownload = False,
    output: Output = Path("results"),
    config: Config = None,
    properties: Properties = None,
    version: Version = False,
) -> RunRequest:
    """Make the request from the options of reproduce.py. Its models, and its datasets if none is named, come later.

    Raises:
        HellmError: the value of an option is wrong.
    """
    return RunRequest(
        models=(),
        datasets=() if dataset is None else parse_datasets(dataset),
        preset=preset,
        overrides=read_overrides(context, llm, llm_layers, settings or []),
        data_path=data_path,
        may_download=not no_download,
        output=output,
        device=device,
        threads=check_threads(threads),
        seeds=parse_seeds(seeds),
        tuned=False,
        ray=ray,
        protocol="paper",
        exports=(),
        export_k=None,
        fresh=fresh,
        dry_run=False,
        jobs=parse_jobs(jobs, ray),
    )
