"""Load the data of a command, and prepare a known dataset first if that has not been done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.known_datasets import DATASET_ROOT
from hellm_recbole.data.prepare import find_known_source, prepare_if_known
from hellm_recbole.data.split import Split
from hellm_recbole.data.splits.named import NamedSplit, describe_details
from hellm_recbole.llm.text_encoder import find_text_encoder
from hellm_recbole.plugins.splits import split_as_named


def refuse_missing_data(names: Sequence[str], data_path: Path | None, *, may_download: bool = True) -> None:
    """Refuse datasets that are neither prepared nor known, before the first of them is prepared.

    Args:
        names: names of the datasets.
        data_path: folder with the source files, or None to search the usual folders.
        may_download: whether raw files that can be downloaded are a source as well.

    Raises:
        DataError: a dataset is unknown, or its source files are not found.
        SettingsError: a name cannot be used as a file name.
        MissingDependency: the package with the source of a dataset is not installed.
    """
    for name in names:
        find_known_source(name, data_path=data_path, dataset_root=DATASET_ROOT, may_download=may_download)


def load_data(
    name: str,
    data_path: Path | None,
    *,
    modalities: Sequence[str] | None = None,
    split: str | None = None,
    root: Path = DATASET_ROOT,
    may_download: bool = True,
) -> tuple[Dataset, Split]:
    """Load a dataset and its split. A known dataset is prepared first; its raw files are downloaded if none is found.

    Args:
        name: name of the dataset.
        data_path: folder with the source files, or None to search the usual folders.
        modalities: modalities whose features are read; None reads all.
        split: value of `--split`; None splits by leave-one-out, or as the dataset itself says.
        root: folder of the prepared datasets.
        may_download: whether raw files may be downloaded.

    Raises:
        HellmError: the split is unknown, a value of it is wrong, or the dataset cannot be split so.
    """
    prepared = prepare_if_known(
        name, data_path=data_path, dataset_root=root, find=find_text_encoder, may_download=may_download
    )
    for warning in prepared.warnings:
        print(f"{name}: {warning}")
    dataset = load_dataset(prepared.folder, modalities=modalities)
    dataset, made = split_as_named(dataset, split, prepared.folder)
    if isinstance(made, NamedSplit) and made.details is not None:
        print(f"{name}: {describe_details(made.kind, made.details)}")
    return dataset, made
