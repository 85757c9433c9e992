"""Command-line options that several commands share, and the functions that parse their values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from baselines.registry import RECBOLE_BASELINES, REGISTRY
from hellm_recbole.config.limits import LARGEST_SEED, MOST_THREADS
from hellm_recbole.config.request import EXPORTS, LOCAL, TEST_LISTS, Override, RunRequest, SearchRequest, parse_override
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.known_datasets import list_datasets
from hellm_recbole.data.prepare import prepare_if_known
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import ModelError, SettingsError, shorten
from hellm_recbole.experiments.model_layers import list_presets

ALL_MODELS = (*RECBOLE_BASELINES, *REGISTRY)  # the models of `--models all`


def make_run_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Make the parser with the options that run.py and ablate.py share."""
    parser = _make_parser(program, description, "--key=value is a short form of --set key=value.")
    parser.add_argument(
        "--seeds", default="2024", help="random seeds of the runs, separated by commas (default: %(default)s)"
    )
    parser.add_argument("--tuned", action="store_true", help="run the models with the best values that tune.py found")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="run in parallel as Ray tasks, on this machine or on the Ray cluster at ADDRESS (auto or ray://HOST:PORT)",
    )
    parser.add_argument(
        "--protocol",
        choices=("unified", "paper"),
        default="unified",
        help="evaluation protocol of the printed table (default: %(default)s)",
    )
    parser.add_argument(
        "--export",
        metavar="WHAT",
        help=f"files to write for each run, separated by commas: {TEST_LISTS} (top-K lists of the test part, for "
        "analysing a test result and not for serving, because a user's test items were neither read nor masked) or "
        "embeddings (of users and items)",
    )
    parser.add_argument(
        "--export-k",
        metavar="K",
        help=f"length of each list of --export {TEST_LISTS} (default: the largest cut-off of the run); a user with "
        "fewer candidates gets a shorter list",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="delete earlier runs of the named models and run them from scratch"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the memory and the time that LLM runs need, then exit"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the known models, variants, datasets and presets, then exit"
    )
    return parser


def _make_parser(program: str, description: str | None, epilog: str) -> argparse.ArgumentParser:
    """Make a parser with the options for models, data, settings and machine, which runs and searches share."""
    parser = argparse.ArgumentParser(prog=program, description=description, epilog=epilog, allow_abbrev=False)
    parser.add_argument(
        "--models",
        default="all",
        help="model names separated by commas, or all (default: %(default)s); any general or sequential model of "
        "RecBole can be named",
    )
    parser.add_argument("--dataset", default="ml-100k", help="dataset names separated by commas (default: %(default)s)")
    parser.add_argument("--preset", default="paper", help="preset of settings, quick or paper (default: %(default)s)")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="[MODEL.]KEY=VALUE",
        help="value of a setting, for all models or for MODEL only; the option can be repeated",
    )
    parser.add_argument(
        "--llm", help="language model of LLM runs: auto, a Hugging Face id, a folder or a GGUF file (default: auto)"
    )
    parser.add_argument(
        "--llm-layers",
        type=int,
        metavar="N",
        help="number of first layers of the language model to keep; fewer layers are faster on a CPU (default: all)",
    )
    parser.add_argument("--data-path", type=Path, help="folder with the source files of the datasets")
    parser.add_argument(
        "--output", type=Path, default=Path("results"), help="folder of the results (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="auto", help="device to train on: auto, cpu or cuda:N (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, help="number of CPU threads, or of CPUs of a local Ray cluster (default: all)"
    )
    return parser


def load_data(name: str, data_path: Path | None) -> tuple[Dataset, Split]:
    """Load a dataset and its split. A known dataset is prepared first if its source files are found.

    Args:
        name: name of the dataset.
        data_path: folder with the source files, or None to search the usual folders.
    """
    prepared = prepare_if_known(name, data_path=data_path, dataset_root=Path("dataset"))
    for warning in prepared.warnings:
        print(f"{name}: {warning}")
    dataset = load_dataset(prepared.folder, modalities=None)
    return dataset, split_dataset(dataset)


def parse_names(text: str, option: str) -> list[str]:
    """Parse names separated by commas. A repeated name is returned once.

    Args:
        text: value of the option.
        option: name of the option, for the error message.

    Raises:
        ModelError: there is no name.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ModelError(f"{option} names nothing; give names separated by commas")
    return list(dict.fromkeys(names))


def check_threads(threads: int | None) -> None:
    """Refuse an impossible number of threads.

    Raises:
        SettingsError: the number is below 1 or too large.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise SettingsError(f"--threads {threads} must be at least 1 and at most {MOST_THREADS}")


def parse_seeds(text: str) -> list[int]:
    """Parse seeds separated by commas. A repeated seed is returned once.

    Raises:
        SettingsError: a seed is not an integer, is negative or is too large.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise SettingsError(
            f"--seeds {shorten(text)!r} must be integers separated by commas, such as 2024,2025"
        ) from error
    if min(seeds) < 0 or max(seeds) > LARGEST_SEED:
        raise SettingsError(f"--seeds {shorten(text)!r}: a seed must be at least 0 and at most {LARGEST_SEED}")
    return list(dict.fromkeys(seeds))


def parse_exports(text: str | None) -> list[str]:
    """Parse the names of `--export`. Return an empty list if the option is not given.

    Raises:
        SettingsError: a name is unknown.
    """
    exports = [] if text is None else parse_names(text, "--export")
    for name in exports:
        if name == "recommendations":
            raise SettingsError(
                f"--export {name} is now called {TEST_LISTS}; the lists belong to the test part and do not use the "
                "user's last item, so they are for analysing a test result and not for serving"
            )
        if name not in EXPORTS:
            raise SettingsError(f"--export {name!r} is unknown; it can be {' or '.join(EXPORTS)}")
    return exports


def parse_export_k(text: str | None, exports: Sequence[str]) -> int | None:
    """Parse the length of exported lists. Return None if the option is not given.

    Raises:
        SettingsError: the length is not a positive integer, or no lists are exported.
    """
    if text is None:
        return None
    if TEST_LISTS not in exports:
        raise SettingsError(f"--export-k is the length of exported lists; use it together with --export {TEST_LISTS}")
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise SettingsError(f"--export-k {shorten(text)!r} must be an integer from 1 to 999,999,999, for example 10")
    return int(text)


def read_overrides(options: argparse.Namespace, rest: Sequence[str]) -> list[Override]:
    """Read the settings given by `--llm`, `--llm-layers`, `--set key=value`, and by RecBole's form `--key=value`.

    Args:
        options: parsed options.
        rest: arguments that the parser did not know.

    Raises:
        SettingsError: an argument has none of these forms.
    """
    llm = (("llm", options.llm, "--llm"), ("llm_layers", options.llm_layers, "--llm-layers"))
    overrides = [Override(None, key, value, f"{option} {value}") for key, value, option in llm if value is not None]
    overrides += [parse_override(text, "--set ") for text in options.settings]
    for text in rest:
        overrides.append(parse_override(text.removeprefix("--"), "--" if text.startswith("--") else ""))
    return overrides


def read_run_request(options: argparse.Namespace, rest: Sequence[str], every_model: Sequence[str]) -> RunRequest:
    """Read what to run from the options of `make_run_parser`.

    Args:
        options: parsed options.
        rest: arguments that the parser did not know.
        every_model: models of `--models all`.

    Raises:
        HellmError: an option is wrong.
    """
    check_threads(options.threads)
    overrides = read_overrides(options, rest)
    seeds = parse_seeds(options.seeds)
    exports = parse_exports(options.export)
    return RunRequest(
        models=tuple(every_model if options.models == "all" else parse_names(options.models, "--models")),
        datasets=tuple(parse_names(options.dataset, "--dataset")),
        preset=options.preset,
        overrides=tuple(overrides),
        data_path=options.data_path,
        output=options.output,
        device=options.device,
        threads=options.threads,
        seeds=tuple(seeds),
        tuned=options.tuned,
        ray=options.ray,
        protocol=options.protocol,
        exports=tuple(exports),
        export_k=parse_export_k(options.export_k, exports),
        fresh=bool(options.fresh),
        dry_run=options.dry_run,
    )


def print_names() -> int:
    """Print the names of all models, variants, datasets and presets, and return the exit code."""
    print(f"models    {', '.join(ALL_MODELS)}")
    print("          and any general or sequential model of RecBole")
    print(f"variants  {', '.join(list_all_variants())}")
    print(f"datasets  {', '.join(list_datasets())}")
    print(f"presets   {', '.join(list_presets())}")
    return 0


def make_search_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Make the parser with the options that tune.py and study.py share."""
    epilog = "--key=value is a short form of --set key=value. It applies to every trial."
    parser = _make_parser(program, description, epilog)
    parser.add_argument(
        "--seed",
        type=int,
        default=2024,
        help="random seed of all trials and of the choice of points (default: %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="resume searches that were stopped")
    parser.add_argument("--fresh", action="store_true", help="delete earlier searches and start from scratch")
    parser.add_argument(
        "--address",
        default=LOCAL,
        help="address of the Ray cluster: local, auto (a cluster that already runs on this machine) or ray://HOST:PORT "
        "(default: %(default)s)",
    )
    return parser


def read_search_request(options: argparse.Namespace, rest: Sequence[str], models: Sequence[str]) -> SearchRequest:
    """Read the request of a search from the options of `make_search_parser`.

    Args:
        options: options of the command.
        rest: arguments that the parser did not know, such as settings in RecBole's form.
        models: names of the models.
    """
    (seed,) = parse_seeds(str(options.seed))
    return SearchRequest(
        models=tuple(models),
        datasets=tuple(parse_names(options.dataset, "--dataset")),
        preset=options.preset,
        overrides=tuple(read_overrides(options, rest)),
        data_path=options.data_path,
        output=options.output,
        device=options.device,
        threads=options.threads,
        seed=seed,
        resume=options.resume,
        fresh=options.fresh,
        address=options.address,
    )
