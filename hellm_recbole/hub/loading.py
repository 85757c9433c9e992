"""Load a run from the hub: fetch its JSON and safetensors files, compare them with the manifest, and open the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import torch

from hellm_recbole.data.embeddings import digest_tables
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError, HellmError, HubError
from hellm_recbole.experiments.external_embeddings import ExternalEmbeddings, SplitWithEmbeddings
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.hub.client import fetch_files, fetch_manifest
from hellm_recbole.hub.manifest import MANIFEST, RUNS, WHAT, RunManifest, check_files, parse_manifest
from hellm_recbole.hub.names import HubName
from hellm_recbole.hub.repository import find_cut_language_model, read_tables
from hellm_recbole.hub.untrusted import check_names, convert_faults, refuse_foreign_links, refuse_other_dtypes
from hellm_recbole.models.base import ModelSpec
from hellm_recbole.serving.dataset import LoadedDataset
from hellm_recbole.serving.loading import load_from_split, open_run, read_finished
from hellm_recbole.serving.recommender import Recommender
from hellm_recbole.types import FloatArray


def load_hub_run(
    name: HubName,
    find_dataset: Callable[[RunResult], LoadedDataset],
    registry: Mapping[str, ModelSpec],
    device: torch.device,
    llm: str | None,
) -> Recommender:
    """Load a run that `push` has written, from the hub or from the cache of `huggingface_hub`.

    Nothing but JSON and safetensors files is fetched, whatever else the repository holds.

    Args:
        name: the repository, perhaps at a revision.
        find_dataset: finds the dataset of a record.
        registry: name -> entry of each of our models.
        device: device that it is loaded on.
        llm: folder, file or id of its language model, if that is not the recorded one.

    Raises:
        HubError: the repository cannot be fetched, or is not one of ours.
        HellmError: something that the run depends on is not there, or is another.
    """
    folder, manifest = fetch_run(name)
    run = folder / manifest.run
    with convert_faults(name), name_repository(run, name):
        check_names(folder, manifest, name)
        result = read_finished(run)
        if result.split_hash != manifest.split_sha256:
            raise HubError(f"the {MANIFEST} of {name} has another split_sha256 than the record; push the run again")
        if llm is None and (model := find_cut_language_model(folder)) is not None:
            raise DataError(
                f"{name} was made with a language model in a folder named {model}, which is not pushed; name the "
                "folder of this model with --llm FOLDER, or llm=FOLDER in Python"
            )
        tables = read_tables(folder)
        dataset = find_dataset(result)
        stored = open_run(result, registry, device, llm)
        loaded = load_from_split(stored, dataset, add_tables(dataset.split, result, tables))
        refuse_other_dtypes(folder, manifest, loaded.scorer, name)
        return loaded


def fetch_run(name: HubName) -> tuple[Path, RunManifest]:
    """Fetch the files of a run.

    Returns:
        Folder of the repository in the cache, and its manifest.

    Raises:
        HubError: see `load_hub_run`.
    """
    fetched = fetch_manifest(name, "model", MANIFEST, WHAT)
    manifest = parse_manifest(fetched.manifest, name, fetched.cache)
    folder = fetch_files(fetched, [MANIFEST, *manifest.files])
    refuse_foreign_links(folder, manifest, name)
    check_files(manifest, folder, name)
    return folder, manifest


def add_tables(split: Split, result: RunResult, tables: Mapping[str, FloatArray]) -> Split:
    """Add pushed embeddings to the split of the dataset, as those from files are.

    Args:
        split: split of the dataset.
        result: record of the run.
        tables: name -> [I + 1, D] or [U + 1, D] float32.

    Raises:
        HubError: a table has another number of rows than the dataset.
    """
    if not tables:
        return split
    found = {}
    for name, table in tables.items():
        if len(table) not in (split.n_items + 1, split.n_users + 1):
            raise HubError(
                f"the embeddings of {name} have {len(table) - 1:,} rows, and {split.dataset} has {split.n_items:,} "
                f"items and {split.n_users:,} users; prepare the dataset as it was for the run of {result.label}"
            )
        digest = digest_tables({name: table})[name]
        found[name] = ExternalEmbeddings(table, {"sha256": digest, "run_sha256": None, "features": None, "code": None})
    return SplitWithEmbeddings(**{field.name: getattr(split, field.name) for field in fields(Split)}, embeddings=found)


@contextmanager
def name_repository(run: Path, name: HubName) -> Iterator[None]:
    """Name the repository in messages, where they name the folder of the run in the cache.

    Raises:
        HellmError: the block raised one.
    """
    root = run.parents[3]
    try:
        yield
    except HellmError as error:
        text = str(error)
        for path in (str(run), str(run.absolute())):
            text = text.replace(path, str(name))
        text = text.replace(f"{root / RUNS}", str(name)).replace(str(root), str(name))
        raise type(error)(text) from error
