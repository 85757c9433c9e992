"""Published runs: finished runs in a small form that a repository can hold and that names no machine, user or item.

A published run is a folder `<dataset>/<model>/<seed>/` with three files:

- `record.json`: the run result, which includes the curve of training (losses and validation metrics of each epoch).
  Paths of the machine are cut. Its key `published` says which keys held one, and has the metrics of all three masks.
- `settings.yaml`: the settings that can change a number, as in the folder of the run.
- `ranks.npz`: the ranks in the order of the split, without tokens (`ranks_file.write_published_ranks`).

A folder of published runs can be read like a folder of results: the report makes its tables from it. There are no
checkpoints, weights or embeddings in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import yaml

from hellm_recbole.config.harness_settings import NEUTRAL_KEYS
from hellm_recbole.errors import ResultError
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.experiments.machine_paths import (
    cut_absolute_paths,
    cut_paths,
    cut_value,
    find_machine_folder,
    hide_names,
)
from hellm_recbole.experiments.ranks_file import (
    RANKS_FILE,
    PhaseRanks,
    Policy,
    lacks_tokens,
    read_ranks,
    write_published_ranks,
)
from hellm_recbole.experiments.results import (
    RECORD_FILE,
    RunResult,
    SettingValue,
    digest_run,
    read_result,
    write_result,
)
from hellm_recbole.system.files import (
    create_scratch_folder,
    remove_leftovers,
    replace_folder,
    sha256_file,
    write_text,
)

SETTINGS_FILE = "settings.yaml"
PUBLISHED_FILES = (RECORD_FILE, SETTINGS_FILE, RANKS_FILE)
PHASES = ("valid", "test")
_KEPT = frozenset({"counts", "filter", "metrics", "curve", "published", "path"})  # numbers only
_FREE_TEXTS = frozenset({"prompt", "ending", "item_separator", "placeholder"})  # settings that a language model reads
_SOURCES = frozenset({"llm"})  # settings that name a model or a file
_SOURCE_ENDINGS = ("_path", "_dir", "_file", "_folder")
_FRESH = "--fresh"  # part of every advice to repeat a run
_ADVICE = "restore the file, or publish the run again with hellm-recbole publish --fresh"


@dataclass(frozen=True)
class PublishedRun:
    """A published run.

    Attributes:
        result: run result; its `path` is that of the published `record.json`.
        ranks: phase -> ranks. Users have numbers instead of tokens, and items have none.
    """

    result: RunResult
    ranks: dict[str, PhaseRanks]

    @property
    def n_bytes(self) -> int:
        """Size of the files of the run."""
        return sum(path.stat().st_size for path in get_folder(self.result).iterdir())


def get_folder(result: RunResult) -> Path:
    """Return the folder that a run result was read from."""
    assert result.path is not None
    return result.path.parent


def name_run(result: RunResult) -> str:
    """Name a run in messages: its label and its seed."""
    return f"{result.label} {result.seed}"


def list_published_folders(folder: Path, dataset: str) -> list[Path]:
    """List the folders of the published runs of a dataset, broken ones included, sorted by model and seed.

    Args:
        folder: folder of published runs, such as `results/published`.
        dataset: name of the dataset.
    """
    paths = (folder / dataset).glob("*/*")
    return sorted(path for path in paths if path.is_dir() and not path.name.startswith("."))


def read_published(folder: Path, dataset: str, label: str, seed: int) -> PublishedRun:
    """Read a published run and check the digests of its files.

    Args:
        folder: folder of published runs, such as `results/published`.
        dataset: name of the dataset.
        label: name of the run in tables (`RunResult.label`).
        seed: random seed of the run.

    Raises:
        ResultError: a file is missing, broken or changed, or there are other files in the folder.
    """
    return read_published_folder(folder / dataset / label / str(seed))


def read_published_folder(folder: Path) -> PublishedRun:
    """Read a published run from its folder; see `read_published`.

    Raises:
        ResultError: a file is missing, broken or changed, or there are other files in the folder.
    """
    result = read_published_result(folder)
    assert result.published is not None
    if unknown := sorted(path.name for path in folder.iterdir() if path.name not in PUBLISHED_FILES):
        raise ResultError(f"{folder / unknown[0]} does not belong to a published run; remove it")
    settings = folder / SETTINGS_FILE
    if not settings.is_file() or sha256_file(settings) != result.published["settings_sha256"]:
        raise ResultError(f"{settings} is missing or has changed since it was published; {_ADVICE}")
    if _parse_settings(settings.read_bytes()) != _parse_settings(render_settings(result)):
        raise ResultError(f"{settings} does not have the settings of {RECORD_FILE} beside it; {_ADVICE}")
    with _advise_on_files():
        return PublishedRun(result, read_ranks(folder / RANKS_FILE, result.ranks_sha256))


def read_published_result(folder: Path) -> RunResult:
    """Read the result of a published run from its folder.

    Raises:
        ResultError: the file is missing or broken, is not that of a published run, or belongs into another folder.
    """
    with _advise_on_files():
        result = read_result(folder / RECORD_FILE)
    expected, recorded = folder.parts[-3:], (result.dataset, result.label, str(result.seed))
    if expected != recorded:
        raise ResultError(f"run result {result.path} says it is {'/'.join(recorded)}; move its folder to this name")
    if result.published is None or result.ranks_sha256 is None or result.ranks != RANKS_FILE:
        raise ResultError(f"{result.path} is not a published run; hellm-recbole publish writes published runs")
    return result


def _parse_settings(text: str | bytes) -> Any:
    """Parse the text of `settings.yaml`; None if it is not YAML."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


@contextmanager
def _advise_on_files() -> Iterator[None]:
    """Advise to restore a broken file and not to repeat the run, which another machine may have executed.

    Raises:
        ResultError: the block raised one.
    """
    try:
        yield
    except ResultError as error:
        raise ResultError(f"{str(error).rpartition('; ')[0] or error}; {_ADVICE}") from error


@contextmanager
def advise_on_published_runs(folder: Path) -> Iterator[None]:
    """Advise to restore a broken file if the runs in a folder are published ones.

    Args:
        folder: folder of a dataset's runs, published or not.

    Raises:
        ResultError: the block raised one. Its advice is another if it was to repeat a run that is published.
    """
    try:
        yield
    except ResultError as error:
        if _FRESH not in str(error).rpartition("; ")[2] or not _holds_published_runs(folder):
            raise
        with _advise_on_files():
            raise


def _holds_published_runs(folder: Path) -> bool:
    """Return whether a folder of a dataset's runs holds published ones, by their ranks or their results."""
    return any(lacks_tokens(path / RANKS_FILE) or _is_published(path) for path in folder.glob("*/*"))


def _is_published(folder: Path) -> bool:
    """Return whether the result in a folder is that of a published run; False if it cannot be read."""
    try:
        return read_result(folder / RECORD_FILE).published is not None
    except ResultError:
        return False


def prepare_publication(result: RunResult) -> PublishedRun:
    """Convert a finished run to the published form in memory.

    Args:
        result: result of the run.

    Returns:
        The published run. Its `ranks` still have tokens, which `write_publication` leaves out. Its result has no
        `ranks_sha256`.

    Raises:
        ResultError: the run is not finished, is published already, has no test ranks, or its ranks are broken.
    """
    if result.published is not None:
        raise ResultError(f"{result.path} is a published run; publish the run that it was made from")
    if result.status != "success":
        raise ResultError(f"{result.path} has status {result.status}; only finished runs can be published")
    path = get_folder(result) / result.ranks
    ranks = read_ranks(path, result.ranks_sha256)
    if tuple(ranks) != PHASES:
        raise ResultError(f"ranks {path} have no test part; run the model again with --fresh")
    cut = cut_result(result)
    before, after = (_list_texts(each) for each in (result, cut))
    settings_sha256 = hashlib.sha256(render_settings(cut).encode()).hexdigest()
    published: Any = {
        "run_sha256": digest_run(result),
        "settings_sha256": settings_sha256,
        "cut": tuple(key for key, text in before.items() if after[key] != text),
        "metrics": summarize_ranks(ranks, result.cutoffs),
    }
    return PublishedRun(replace(cut, ranks=RANKS_FILE, ranks_sha256=None, published=published), ranks)


def summarize_ranks(ranks: Mapping[str, PhaseRanks], cutoffs: Sequence[int]) -> dict[str, dict[str, dict[str, float]]]:
    """Compute the metrics of the ranks of each phase under each masking policy.

    Args:
        ranks: phase -> ranks.
        cutoffs: cut-offs K.

    Returns:
        Phase -> policy -> metric ("R@K", "N@K", or "mean_rank", the mean over targets) -> value.
    """
    return {
        phase: {
            policy: {
                **average_metrics(each.user, each.get_ranks(policy), cutoffs),
                "mean_rank": float(each.get_ranks(policy).mean()),
            }
            for policy in get_args(Policy)
        }
        for phase, each in ranks.items()
    }


def write_publication(run: PublishedRun, folder: Path) -> PublishedRun:
    """Write a run from `prepare_publication` into a folder of published runs, completely or not at all.

    Args:
        run: the run.
        folder: folder of published runs, such as `results/published`. A published run with the same dataset, label and
            seed is replaced.

    Returns:
        The run as it is read from its files.

    Raises:
        ResultError: a text still names a folder of this machine.
        OutputError: the folder cannot be written.
    """
    result = run.result
    parent, seed = folder / result.dataset / result.label, str(result.seed)
    remove_leftovers(parent)
    with create_scratch_folder(parent, seed, "--to") as scratch:
        ranks_sha256 = sha256_file(write_published_ranks(scratch, run.ranks))
        write_text(scratch / SETTINGS_FILE, render_settings(result))
        record = write_result(scratch, replace(result, ranks_sha256=ranks_sha256))
        for path in (record, scratch / SETTINGS_FILE):
            if found := find_machine_folder(path.read_text(encoding="utf-8")):
                raise ResultError(f"{path.name} of {name_run(result)} names {found}, a folder of this machine")
        replace_folder(scratch, parent / seed)
    return read_published(folder, result.dataset, result.label, result.seed)


def is_same_run(run: PublishedRun, other: PublishedRun) -> bool:
    """Return whether two published runs have equal results and equal ranks; tokens are not compared."""
    if _leave_ranks_out(run.result) != _leave_ranks_out(other.result):
        return False
    names = [spec.name for spec in dataclasses.fields(PhaseRanks) if spec.name not in ("user", "item")]
    return all(
        getattr(run.ranks[phase], name).tolist() == getattr(other.ranks[phase], name).tolist()
        for phase in PHASES
        for name in names
    )


def _leave_ranks_out(result: RunResult) -> RunResult:
    """Remove from a published result what follows from its ranks, which are compared themselves."""
    published: Any = {key: value for key, value in (result.published or {}).items() if key != "metrics"}
    return replace(result, ranks_sha256=None, published=published)


def remove_publication_leftovers(folder: Path, dataset: str) -> None:
    """Remove what a killed publish.py left in the folders of a dataset's published runs."""
    for path in (folder / dataset).glob("*"):
        remove_leftovers(path)


def render_settings(result: RunResult) -> str:
    """Write the settings of a run that can change its numbers as YAML, as the run did."""
    settings = {key: entry["value"] for key, entry in sorted(result.settings.items()) if key not in NEUTRAL_KEYS}
    return yaml.safe_dump(settings, sort_keys=True, allow_unicode=True)


def cut_result(result: RunResult) -> RunResult:
    """Cut the paths of the machine out of the texts of a run result. Only its identity names files in longer texts."""
    changes = {
        spec.name: cut_absolute_paths(getattr(result, spec.name))
        for spec in dataclasses.fields(RunResult)
        if spec.name not in (*_KEPT, "settings", "identity")
    }
    settings = {key: _cut_setting(key, entry) for key, entry in result.settings.items()}
    return replace(result, settings=settings, identity=cut_value(result.identity), **changes)


def _cut_setting(key: str, entry: SettingValue) -> SettingValue:
    """Cut the paths out of a setting and its origin, which may be an option of the command line.

    Texts that a language model reads stay as they are: words such as `sci-fi/fantasy/horror` look like paths there. If
    one names a folder of this machine, `write_publication` refuses it.
    """
    value, origin = entry["value"], entry["origin"]
    typed = origin.startswith("--")
    if key in _FREE_TEXTS:
        return {"value": value, "origin": origin if typed else cut_paths(origin)}
    origin = cut_paths(origin, value if isinstance(value, str) else None)
    cut = cut_value if key in _SOURCES or key.endswith(_SOURCE_ENDINGS) else cut_absolute_paths
    return {"value": cut(value), "origin": hide_names(origin) if typed else origin}


def _list_texts(result: RunResult) -> dict[str, str]:
    """List all texts of a run result: its key, with dots, -> text."""
    texts: dict[str, str] = {}

    def add(value: Any, key: str) -> None:
        if isinstance(value, str):
            texts[key] = value
        elif isinstance(value, dict):
            for name, entry in value.items():
                add(entry, f"{key}.{name}")
        elif isinstance(value, list | tuple):
            for index, entry in enumerate(value):
                add(entry, f"{key}[{index}]")

    for spec in dataclasses.fields(RunResult):
        if spec.name not in _KEPT:
            add(getattr(result, spec.name), spec.name)
    return texts
