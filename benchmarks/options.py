"""Options that several commands share, and what their texts say: names, seeds, settings, exports."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from hellm_recbole.config.layers import LARGEST_SEED, MOST_THREADS, shorten
from hellm_recbole.data.atomic import Dataset, load_dataset
from hellm_recbole.data.prepare import prepare_if_known
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.export import EXPORTS, TEST_LISTS
from hellm_recbole.experiments.ray_cluster import LOCAL
from hellm_recbole.experiments.resolve import (
    Override,
    parse_override,
)


def make_run_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all commands which run rows share."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="--key=value sets a setting as --set key=value does.",
        allow_abbrev=False,
    )
    add_run_options(parser)
    parser.add_argument("--seeds", default="2024", help="separated by commas (%(default)s)")
    parser.add_argument("--tuned", action="store_true", help="run the rows with the values that tune.py has found")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="run the rows side by side as Ray tasks: on this machine, or on the cluster at ADDRESS (auto, ray://HOST:PORT)",
    )
    parser.add_argument(
        "--protocol", choices=("unified", "paper"), default="unified", help="which table is printed (%(default)s)"
    )
    parser.add_argument(
        "--export",
        metavar="WHAT",
        help=f"write of each run, separated by commas: {TEST_LISTS}, top-K lists of the test phase, for analysing a "
        "test result and not for serving (a user's test items were neither read nor masked); embeddings",
    )
    parser.add_argument(
        "--export-k",
        metavar="K",
        help=f"entries of each list of --export {TEST_LISTS} (largest cut-off of the run); a user with fewer "
        "candidates gets fewer",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="run the named rows again if they are finished or half-way"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what the LLM rows would take, and end")
    parser.add_argument("--list", action="store_true", help="show models, datasets and presets, and end")
    return parser


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which models, data, settings and machine: those of run.py and tune.py alike."""
    parser.add_argument(
        "--models",
        default="all",
        help="names separated by commas, or all; any general or sequential model of RecBole is one",
    )
    parser.add_argument("--dataset", default="ml-100k", help="names separated by commas (%(default)s)")
    parser.add_argument("--preset", default="paper", help="quick or paper (%(default)s)")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="[MODEL.]KEY=VALUE", help="override a setting"
    )
    parser.add_argument("--llm", help="language model of the LLM rows: auto, a hub id, a folder or a GGUF file (auto)")
    parser.add_argument("--llm-layers", type=int, metavar="N", help="keep its first N layers, for CPUs")
    parser.add_argument("--data-path", type=Path, help="folder with the source of the datasets")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the results (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads, or CPUs of a local Ray cluster; all if not given")


def load_data(name: str, data_path: Path | None) -> tuple[Dataset, Split]:
    """A dataset, prepared first where its source is at hand, and its split."""
    prepared = prepare_if_known(name, data_path=data_path, dataset_root=Path("dataset"))
    for warning in prepared.warnings:
        print(f"{name}: {warning}")
    dataset = load_dataset(prepared.folder, modalities=None)
    return dataset, split_dataset(dataset)


def parse_names(text: str, option: str) -> list[str]:
    """Names separated by commas, each once.

    Raises:
        ModelError: there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ModelError(f"{option} names nothing; give names separated by commas")
    return list(dict.fromkeys(names))


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that no machine has.

    Raises:
        SettingsError: it is below 1 or too large.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise SettingsError(f"--threads {threads} must be at least 1 and at most {MOST_THREADS}")


def parse_seeds(text: str) -> list[int]:
    """Seeds separated by commas, each once.

    Raises:
        SettingsError: one of them is no integer, negative or too large.
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
    """Read what `--export` names; nothing where it is not given.

    Raises:
        SettingsError: one of the names is unknown.
    """
    exports = [] if text is None else parse_names(text, "--export")
    for name in exports:
        if name == "recommendations":
            raise SettingsError(
                f"--export {name} is called {TEST_LISTS} now, for these are the lists of the test phase, made without "
                "the user's last item: they are for analysing a test result, not for serving"
            )
        if name not in EXPORTS:
            raise SettingsError(f"--export {name!r} is unknown; it can be {' or '.join(EXPORTS)}")
    return exports


def parse_export_k(text: str | None, exports: Sequence[str]) -> int | None:
    """Read the length of exported lists; None where it is not given.

    Raises:
        SettingsError: it is no whole number from 1 on, or no lists are exported.
    """
    if text is None:
        return None
    if TEST_LISTS not in exports:
        raise SettingsError(f"--export-k is the length of exported lists; give it with --export {TEST_LISTS}")
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise SettingsError(f"--export-k {shorten(text)!r} must be a whole number from 1 to 999,999,999, such as 10")
    return int(text)


def read_overrides(options: argparse.Namespace, rest: Sequence[str]) -> list[Override]:
    """Settings of `--llm`, `--llm-layers`, `--set key=value`, and of RecBole's form `--key=value`.

    Raises:
        SettingsError: one of them is not understood.
    """
    llm = (("llm", options.llm, "--llm"), ("llm_layers", options.llm_layers, "--llm-layers"))
    overrides = [Override(None, key, value, f"{option} {value}") for key, value, option in llm if value is not None]
    overrides += [parse_override(text, "--set ") for text in options.settings]
    for text in rest:
        overrides.append(parse_override(text.removeprefix("--"), "--" if text.startswith("--") else ""))
    return overrides


def make_search_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all commands which run trials share."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="--key=value sets a setting of every trial as --set key=value does.",
        allow_abbrev=False,
    )
    add_run_options(parser)
    parser.add_argument("--seed", type=int, default=2024, help="of every trial, and of the points drawn (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with searches that were stopped")
    parser.add_argument("--fresh", action="store_true", help="start anew")
    parser.add_argument(
        "--address",
        default=LOCAL,
        help="local, auto (a cluster that runs on this machine), or ray://HOST:PORT (%(default)s)",
    )
    return parser
