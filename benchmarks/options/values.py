"""Read the values of command-line options; a wrong value gives one sentence."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import typer

from hellm_recbole.benchmarks.options.config_file import ConfigFile
from hellm_recbole.config.changed_names import CHANGES, Change
from hellm_recbole.config.limits import LARGEST_CUTOFF, LARGEST_SEED, MOST_THREADS
from hellm_recbole.config.request import (
    EXPORTS,
    TEST_LISTS,
    TREC,
    MaskPolicy,
    Override,
    Protocol,
    parse_override,
    translate_overrides,
)
from hellm_recbole.config.row_names import split_names
from hellm_recbole.data.known_datasets import DATASET_ROOT, resolve_name
from hellm_recbole.errors import ModelError, SettingsError, shorten
from hellm_recbole.system.files import check_name


def parse_path(text: str | Path) -> Path:
    """Parse the name of a file or folder. An empty name is refused: it would be the current folder.

    Raises:
        typer.BadParameter: the name is empty.
    """
    if not str(text).strip():
        raise typer.BadParameter("the name is empty; name a file or folder (. is the current folder)")
    return Path(text)


def parse_integer(text: str | int) -> int:
    """Parse an integer.

    Raises:
        typer.BadParameter: the text is not an integer.
    """
    try:
        return int(text)
    except ValueError as error:
        raise typer.BadParameter(f"{shorten(str(text))!r} is not an integer") from error


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


def parse_models(text: str | None) -> tuple[str, ...]:
    """Parse the names of `--models`. Return no name if the option is not given."""
    if text is None:
        return ()
    names = split_names(text)
    return tuple(dict.fromkeys(names)) if names else tuple(parse_names("", "--models"))


def parse_datasets(text: str, folders: Collection[Path] = (DATASET_ROOT,)) -> tuple[str, ...]:
    """Parse the names of `--dataset`. Each dataset is returned once, under the name that it has here.

    Args:
        text: value of the option.
        folders: folders in which a subfolder with a given name keeps that name.

    Raises:
        SettingsError: a name cannot be the name of a folder.
    """
    names = parse_names(text, "--dataset")
    return tuple(dict.fromkeys(parse_dataset(name, folders) for name in names))


def parse_dataset(name: str, folders: Collection[Path] = (DATASET_ROOT,)) -> str:
    """Parse the name of one dataset, and print under which name it is known if that is another one.

    Args:
        name: name as the user wrote it.
        folders: folders in which a subfolder with this name keeps it.

    Raises:
        SettingsError: the name cannot be the name of a folder.
    """
    known = resolve_name(check_name(name, "dataset"), folders)
    if known != name:
        print(f"dataset {name} is named {known} here", file=sys.stderr)
    return known


def check_mask(mask: MaskPolicy | None, protocol: Protocol) -> MaskPolicy | None:
    """Refuse a masking policy for all rows of the protocol that has one for each family.

    Raises:
        SettingsError: both are given.
    """
    if mask is not None and protocol == "paper":
        raise SettingsError(
            f"--mask {mask} is for all rows, but --protocol paper has a mask policy for each family; use one of the two"
        )
    return mask


def check_threads(threads: int | None) -> int | None:
    """Refuse an impossible number of threads, and return a possible one.

    Raises:
        SettingsError: the number is below 1 or too large.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise SettingsError(
            f"--threads {threads} must be at least 1 and at most {MOST_THREADS}; leave it out to use all CPUs"
        )
    return threads


def parse_jobs(text: str, ray: str | None = None) -> int | None:
    """Parse the number of runs to execute side by side; None stands for `auto`.

    Args:
        text: value of `--jobs`.
        ray: value of `--ray`.

    Raises:
        SettingsError: it is neither `auto` nor a possible number, or Ray decides it.
    """
    if text == "auto":
        return None
    if ray is not None:
        raise SettingsError(f"--jobs {shorten(text)} and --ray contradict each other; leave one of them out")
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= MOST_THREADS:
        raise SettingsError(f"--jobs {shorten(text)!r} must be auto or a number from 1 to {MOST_THREADS}")
    return int(text)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse seeds separated by commas. A repeated seed is returned once.

    Raises:
        SettingsError: a seed is not an integer, is negative or is too large.
    """
    given = f"--seeds {shorten(text)!r}"
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise SettingsError(f"{given} must be integers separated by commas, such as 2024,2025") from error
    check_seeds(seeds, given)
    return tuple(dict.fromkeys(seeds))


def check_seeds(seeds: Sequence[int], given: str) -> None:
    """Refuse seeds that torch cannot use.

    Args:
        seeds: random seeds.
        given: option and value, for the message.

    Raises:
        SettingsError: a seed is negative or too large.
    """
    if min(seeds) < 0 or max(seeds) > LARGEST_SEED:
        raise SettingsError(f"{given}: a seed must be at least 0 and at most {LARGEST_SEED}")


def parse_exports(text: str | None) -> tuple[str, ...]:
    """Parse the names of `--export`. Return no name if the option is not given.

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
            raise SettingsError(f"--export {name!r} is unknown; it can be {', '.join(EXPORTS)}")
    return tuple(exports)


def parse_changes(text: str) -> tuple[Change, ...]:
    """Parse the changes of `--changes`, at least one.

    Raises:
        SettingsError: a change is unknown.
    """
    names = parse_names(text, "--changes")
    for name in names:
        if name not in CHANGES:
            raise SettingsError(f"--changes {name!r} is unknown; it can be {', '.join(CHANGES)}")
    return tuple(change for change in CHANGES if change in names)


def parse_export_k(text: str | None, exports: Sequence[str]) -> int | None:
    """Parse the length of exported lists. Return None if the option is not given.

    Raises:
        SettingsError: the length is not a positive integer, or no lists are exported.
    """
    if text is None:
        return None
    if not {TEST_LISTS, TREC} & {*exports}:
        raise SettingsError(
            f"--export-k is the length of exported lists; use it together with --export {TEST_LISTS} or {TREC}"
        )
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise SettingsError(f"--export-k {shorten(text)!r} must be an integer from 1 to 999,999,999, for example 10")
    return int(text)


def read_overrides(
    context: typer.Context, llm: str | None, llm_layers: int | None, settings: Sequence[str]
) -> tuple[Override, ...]:
    """Read the settings given by `--llm`, `--llm-layers`, `--set key=value`, and by RecBole's form `--key=value`.

    Those of the file of `--config` come first, so that the command line wins. RecBole's names are translated.

    Args:
        context: context of the command, with the arguments that are no options.
        llm: value of `--llm`.
        llm_layers: value of `--llm-layers`.
        settings: values of `--set`.

    Raises:
        SettingsError: an argument has none of these forms.
    """
    given = (("llm", llm, "--llm"), ("llm_layers", llm_layers, "--llm-layers"))
    overrides = [Override(None, key, value, f"{option} {value}") for key, value, option in given if value is not None]
    overrides += [parse_override(text, "--set ") for text in settings]
    known = [name for param in context.command.params for name in param.opts if name.startswith("--")]
    for text in context.args:
        is_bare = text.startswith("--") and "=" not in text
        if is_bare and (close := difflib.get_close_matches(text, known, n=1, cutoff=0.75)):
            raise SettingsError(f"{text} is not understood; did you mean {close[0]}? A setting is written {text}=VALUE")
        overrides.append(parse_override(text.removeprefix("--"), "--" if text.startswith("--") else ""))
    if isinstance(context.obj, ConfigFile):
        overrides = [*context.obj.select_overrides(parse_models(context.params.get("models"))), *overrides]
    return translate_overrides(overrides)


def parse_embeddings(texts: Sequence[str]) -> dict[str, Path]:
    """Parse the values of `--embeddings`: pretrained model -> file.

    Raises:
        SettingsError: a value is not MODEL=FILE, or a model is named twice.
    """
    files: dict[str, Path] = {}
    for text in texts:
        model, _, file = (part.strip() for part in text.partition("="))
        if not model or not file:
            raise SettingsError(
                f"--embeddings {shorten(text)!r} is not understood; write MODEL=FILE, such as HeLLMPre=graph.npy"
            )
        if model in files:
            raise SettingsError(f"--embeddings names {model} twice ({files[model]} and {file}); name one file for it")
        files[check_name(model, "--embeddings")] = Path(file)
    return files


def parse_cutoffs(text: str) -> list[int]:
    """Parse the values K of `--cutoffs`.

    Raises:
        SettingsError: a value is not a positive integer, is too large, or occurs twice.
    """
    parts = text.split(",")
    if not all(re.fullmatch(r"\s*[0-9]{1,7}\s*", part) and 0 < int(part) <= LARGEST_CUTOFF for part in parts):
        raise SettingsError(
            f"--cutoffs {shorten(text)!r} must be positive integers separated by commas, such as 1,50, and at most "
            f"{LARGEST_CUTOFF:,}"
        )
    cutoffs = [int(part) for part in parts]
    if len(set(cutoffs)) < len(cutoffs):
        raise SettingsError(f"--cutoffs {shorten(text)!r} names one K twice; name each once")
    return cutoffs
