"""Command-line options that several commands share, each defined once, and the functions that read their values.

Nothing here imports torch, Ray, pandas or transformers, so that `--help` and a wrong command line answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import hellm_recbole
from hellm_recbole.benchmarks.options.command_line import ENTRY_POINT
from hellm_recbole.benchmarks.options.jobs import AUTO, Jobs, StorageURI, Timings
from hellm_recbole.benchmarks.options.values import (
    check_mask,
    check_threads,
    parse_datasets,
    parse_embeddings,
    parse_export_k,
    parse_exports,
    parse_integer,
    parse_jobs,
    parse_models,
    parse_names,
    parse_path,
    parse_seeds,
    read_overrides,
)
from hellm_recbole.config.properties_files import VARIABLE, use_folder
from hellm_recbole.config.request import LOCAL, TEST_LISTS, TREC, MaskPolicy, Protocol, RunRequest, SearchRequest
from hellm_recbole.errors import SettingsError
from hellm_recbole.system.storage import check_uri

ALL = "all"  # value of --models and --studies
MODELS, RUNS, SEARCH, MACHINE = "Models, data and settings", "Runs and tables", "Search", "Machine and folders"


def print_version(requested: bool) -> None:
    """Print the version and end the command, if this was requested."""
    if requested:
        print(f"{ENTRY_POINT} {hellm_recbole.__version__}")
        raise typer.Exit()


def use_properties(folder: Path | None) -> Path | None:
    """Use the settings files of the user's folder from now on, if one is named."""
    if folder is not None:
        use_folder(folder)
    return folder


Version = Annotated[
    bool, typer.Option("--version", callback=print_version, is_eager=True, help="print the version, then exit")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        parser=parse_path,
        metavar="FILE",
        help="YAML file with values of these options and with `settings`; the command line wins over it",
        rich_help_panel=MODELS,
    ),
]
Properties = Annotated[
    Path | None,
    typer.Option(
        "--properties",
        parser=parse_path,
        callback=use_properties,
        is_eager=True,
        metavar="DIR",
        help=f"folder with presets, datasets, search spaces and models of your own (default: ${VARIABLE})",
        rich_help_panel=MODELS,
    ),
]
DataSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="NAME",
        help="time-line, ratio or cold-items, perhaps with values (ratio:test_share=0.2,valid_share=0.1), or the split "
        "of an installed package (default: leave-one-out, or the split of the dataset itself)",
        rich_help_panel=MODELS,
    ),
]
Models = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="model names separated by commas, or all; any general or sequential model of RecBole can be named",
        rich_help_panel=MODELS,
    ),
]
Datasets = Annotated[
    str, typer.Option("--dataset", metavar="A,B", help="dataset names separated by commas", rich_help_panel=MODELS)
]
Preset = Annotated[
    str, typer.Option(metavar="NAME", help="preset of settings: paper, published or quick", rich_help_panel=MODELS)
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="[MODEL.]KEY=VALUE",
        help="value of a setting, for all models or for MODEL only; the option can be repeated, and --KEY=VALUE is its "
        "short form",
        rich_help_panel=MODELS,
    ),
]
LanguageModel = Annotated[
    str | None,
    typer.Option(
        "--llm",
        metavar="NAME",
        help="language model of LLM runs: auto, a Hugging Face id, a folder or a GGUF file (default: auto)",
        rich_help_panel=MODELS,
    ),
]
LanguageModelLayers = Annotated[
    int | None,
    typer.Option(
        "--llm-layers",
        parser=parse_integer,
        metavar="N",
        help="number of first layers of the language model to keep; fewer layers are faster on a CPU (default: all)",
        rich_help_panel=MODELS,
    ),
]
EmbeddingFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--embeddings",
        metavar="MODEL=FILE",
        help="item embeddings that LLM runs read instead of training MODEL first (.npy, .safetensors, .pt or .pth with "
        "a file of item tokens next to it, or .parquet with item_id); the option can be repeated",
        rich_help_panel=MODELS,
    ),
]
DataPath = Annotated[
    Path | None,
    typer.Option(
        parser=parse_path,
        metavar="DIR",
        help="folder with the source files of the datasets",
        rich_help_panel=MACHINE,
    ),
]
NoDownload = Annotated[
    bool,
    typer.Option(
        "--no-download",
        help="do not download the raw files of a known dataset whose source files are not found",
        rich_help_panel=MACHINE,
    ),
]
Output = Annotated[
    Path, typer.Option(parser=parse_path, metavar="DIR", help="folder of the results", rich_help_panel=MACHINE)
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="device to train on: auto, cpu or cuda:N", rich_help_panel=MACHINE)
]
Threads = Annotated[
    int | None,
    typer.Option(
        parser=parse_integer,
        metavar="N",
        help="number of CPU threads, which runs side by side share, or of CPUs of a local Ray cluster (default: all)",
        rich_help_panel=MACHINE,
    ),
]
CpuThreads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        parser=parse_integer,
        metavar="N",
        help="number of CPU threads (default: all)",
        rich_help_panel=MACHINE,
    ),
]
Seeds = Annotated[
    str,
    typer.Option(metavar="N,N", help="random seeds of the runs, separated by commas", rich_help_panel=RUNS),
]
Tuned = Annotated[
    bool,
    typer.Option(
        "--tuned", help="run the models with the best values that hellm-recbole tune found", rich_help_panel=RUNS
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="run in parallel as Ray tasks, on this machine or on the Ray cluster at ADDRESS (auto or ray://HOST:PORT)",
        rich_help_panel=MACHINE,
    ),
]
TableProtocol = Annotated[
    Protocol, typer.Option("--protocol", help="evaluation protocol of the printed table", rich_help_panel=RUNS)
]
TableMask = Annotated[
    MaskPolicy | None,
    typer.Option(
        "--mask",
        help="print the table with this masked for all rows: seen (history), train (its training part) or none",
        rich_help_panel=RUNS,
    ),
]
Export = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        help=f"files to write for each run, separated by commas: {TEST_LISTS} (top-K lists of the test part, for "
        "analysing a test result and not for serving, because a user's test items were neither read nor masked), "
        f"{TREC} (the same lists as a TREC run, and their targets as qrels, for ranx or ir-measures) or embeddings (of "
        "users and items)",
        rich_help_panel=RUNS,
    ),
]
ExportLength = Annotated[
    str | None,
    typer.Option(
        "--export-k",
        metavar="K",
        help=f"length of each list of --export {TEST_LISTS} or {TREC} (default: the largest cut-off of the run); a "
        "user with fewer candidates gets a shorter list",
        rich_help_panel=RUNS,
    ),
]
Callbacks = Annotated[
    str | None,
    typer.Option(
        "--callbacks",
        metavar="A,B",
        help="callbacks of installed packages, separated by commas, that follow each run",
        rich_help_panel=RUNS,
    ),
]
FreshRuns = Annotated[
    bool,
    typer.Option(
        "--fresh", help="delete earlier runs of the named models and run them from scratch", rich_help_panel=RUNS
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="print the memory and the time that LLM runs need, then exit", rich_help_panel=RUNS),
]
ShowList = Annotated[
    bool, typer.Option("--list", help="print the known models, variants, datasets and presets, then exit")
]
SearchSeed = Annotated[
    str,
    typer.Option(
        "--seeds",
        metavar="N",
        help="random seed of all trials and of the choice of points",
        rich_help_panel=SEARCH,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", hidden=True)]  # of earlier versions; a search is always resumed
FreshSearches = Annotated[
    bool,
    typer.Option("--fresh", help="delete earlier searches and start from scratch", rich_help_panel=SEARCH),
]
SearchRay = Annotated[
    str,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="run the trials on this machine (local), or on the Ray cluster at ADDRESS (auto or ray://HOST:PORT)",
        rich_help_panel=MACHINE,
    ),
]


def read_run_request(
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
    tuned: Tuned = False,
    protocol: TableProtocol = "unified",
    mask: TableMask = None,
    export: Export = None,
    export_k: ExportLength = None,
    callbacks: Callbacks = None,
    fresh: FreshRuns = False,
    dry_run: DryRun = False,
    timings: Timings = False,
    ray: Ray = None,
    jobs: Jobs = AUTO,
    storage: StorageURI = None,
    device: Device = "auto",
    threads: Threads = None,
    data_path: DataPath = None,
    no_download: NoDownload = False,
    output: Output = Path("results"),
    config: Config = None,
    properties: Properties = None,
    version: Version = False,
) -> RunRequest:
    """Make the request from the options that run.py and ablate.py share; they replace no models, or `all`, by names.

    Raises:
        HellmError: the value of an option is wrong.
    """
    exports = parse_exports(export)
    machine: dict[str, Any] = {"device": device, "threads": check_threads(threads), "ray": ray, "data_path": data_path}
    machine |= {"jobs": parse_jobs(jobs, ray), "storage": storage and check_uri(storage), "timings": timings}
    return RunRequest(
        models=parse_models(models),
        datasets=parse_datasets(dataset),
        preset=preset,
        overrides=read_overrides(context, llm, llm_layers, settings or []),
        may_download=not no_download,
        output=output,
        embeddings=parse_embeddings(embeddings or []),
        seeds=parse_seeds(seeds),
        tuned=tuned,
        protocol=protocol,
        mask=check_mask(mask, protocol),
        exports=exports,
        export_k=parse_export_k(export_k, exports),
        fresh=fresh,
        dry_run=dry_run,
        callbacks=() if callbacks is None else tuple(parse_names(callbacks, "--callbacks")),
        split=split,
        **machine,
    )


def read_search_request(
    context: typer.Context,
    models: Models = None,
    dataset: Datasets = "ml-100k",
    split: DataSplit = None,
    preset: Preset = "paper",
    settings: Settings = None,
    llm: LanguageModel = None,
    llm_layers: LanguageModelLayers = None,
    embeddings: EmbeddingFiles = None,
    seeds: SearchSeed = "2024",
    resume: Resume = False,
    fresh: FreshSearches = False,
    ray: SearchRay = LOCAL,
    device: Device = "auto",
    threads: Threads = None,
    data_path: DataPath = None,
    no_download: NoDownload = False,
    output: Output = Path("results"),
    config: Config = None,
    properties: Properties = None,
    version: Version = False,
) -> SearchRequest:
    """Make the request from the options that tune.py and study.py share.

    The models are those of the command line: none, or the name `all`, which each command replaces by names.

    Raises:
        HellmError: the value of an option is wrong.
    """
    if resume and fresh:
        raise SettingsError("--resume and --fresh contradict each other; use only one of them")
    seed, *others = parse_seeds(seeds)
    if others:
        raise SettingsError(f"--seeds {seeds}: a search has one seed for all its trials; name one")
    return SearchRequest(
        models=parse_models(models),
        datasets=parse_datasets(dataset),
        preset=preset,
        overrides=read_overrides(context, llm, llm_layers, settings or []),
        data_path=data_path,
        may_download=not no_download,
        output=output,
        device=device,
        threads=check_threads(threads),
        embeddings=parse_embeddings(embeddings or []),
        seed=seed,
        fresh=fresh,
        split=split,
        address=ray,
    )
