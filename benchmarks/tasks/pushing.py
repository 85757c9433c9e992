"""Push runs and datasets for push.py, and print what was pushed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.data.known_datasets import DATASET_ROOT
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.split import Split
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.hub.client import Pushed
from hellm_recbole.hub.names import HubName, parse_repository
from hellm_recbole.hub.pushing import Prepared, PushOptions, prepare_run, push_prepared_run
from hellm_recbole.hub.repository import collect_files
from hellm_recbole.identity.parts import list_embedding_files
from hellm_recbole.serving.dataset import read_folder
from hellm_recbole.serving.loading import add_recorded_embeddings, open_run, read_finished, refuse_unread_files

_MB = 1e6


def push_run(folder: Path, options: PushOptions, dataset: Path | None, embeddings: Mapping[str, Path]) -> None:
    """Push a finished run and print its address, or print what would be pushed.

    Args:
        folder: folder of the run.
        options: where it goes, and how.
        dataset: folder of its dataset, which is read only if the run has read embeddings from files.
        embeddings: pretrained model -> file of its embeddings, for each that the run has read from a file.

    Raises:
        HellmError: the run is not finished or lacks a file, or the hub refuses it or cannot be reached.
    """
    parse_repository(options.repository)
    if options.data is not None:
        parse_repository(options.data, "--data")
    result = read_finished(folder)
    stored = open_run(result, load_registry(), torch.device("cpu"))
    refuse_unread_files(result, embeddings, list_embedding_files(result.identity))
    split = _read_split(result, dataset, embeddings)
    files = collect_files(stored, load_registry(), split)
    with prepare_run(files, options) as prepared:
        if options.dry_run:
            _print_plan(prepared, options)
        else:
            pushed = push_prepared_run(prepared, result, options)
            _print_pushed(pushed, prepared, f"load it with {HubName(options.repository, pushed.commit)}")


def _read_split(result: RunResult, dataset: Path | None, embeddings: Mapping[str, Path]) -> Split | None:
    """Read the split of a run that has read embeddings from files, with these embeddings; None for other runs.

    Raises:
        DataError: the dataset cannot be read, or a file is not named.
    """
    if not list_embedding_files(result.identity):
        return None
    loaded = read_folder(dataset or DATASET_ROOT / result.dataset)
    return add_recorded_embeddings(loaded.split, result, embeddings)


def push_dataset(folder: Path, options: PushOptions) -> None:
    """Push a prepared dataset and print its address, or print what would be pushed.

    Args:
        folder: folder of the dataset.
        options: where it goes, and how.

    Raises:
        HellmError: its licence does not allow that or is not known, or the hub refuses it or cannot be reached.
    """
    from hellm_recbole.hub.dataset_repository import prepare_dataset, push_prepared_dataset

    parse_repository(options.repository)
    if options.data is not None:
        raise SettingsError("--data names the dataset of a run; leave it out where a dataset is pushed")
    with prepare_dataset(folder, options) as prepared:
        if options.dry_run:
            _print_plan(prepared, options)
        else:
            pushed = push_prepared_dataset(prepared, folder, options)
            target = f"--local-dir {DATASET_ROOT / read_manifest(folder).name}"
            advice = f"hf download {options.repository} --repo-type dataset {target}"
            _print_pushed(pushed, prepared, f"fetch it with `{advice}`")


def _print_plan(prepared: Prepared, options: PushOptions) -> None:
    """Print the files and the card that would be pushed."""
    for name, size in prepared.sizes.items():
        print(f"{size / _MB:>10,.3f} MB  {name}")
    print(f"\n{prepared.card}")
    print(f"{len(prepared.sizes)} files, {prepared.n_bytes / _MB:,.1f} MB; nothing was pushed to {options.repository}")


def _print_pushed(pushed: Pushed, prepared: Prepared, advice: str) -> None:
    """Print the address of what was pushed, who sees it, and its commit."""
    seen = "private" if pushed.is_private else "public, everybody can read it"
    print(
        f"pushed {len(prepared.sizes)} files, {prepared.n_bytes / _MB:,.1f} MB, to "
        f"{'the new repository ' if pushed.is_new else ''}{pushed.url} ({seen})"
    )
    print(f"commit {pushed.commit}; {advice}")
