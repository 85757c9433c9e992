"""Find the folder with the source files of a dataset, or the kind whose raw files can be downloaded.

The files of the synthetic shop are made there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hellm_recbole.data.download.raw_files import find_raw_source, locate_raw
from hellm_recbole.data.importers.sources import KINDS
from hellm_recbole.data.known_datasets import DATASET_ROOT, list_kinds, list_other_names
from hellm_recbole.data.synthetic_shop import SYNTHETIC_SHOP, write_synthetic_shop
from hellm_recbole.errors import DataError, MissingDependency
from hellm_recbole.system.packages import INSTALL_RECBOLE

ENVIRONMENT = "HELLM_DATA"
SHARED = Path("..") / "shared" / "datasets"  # relative to the current folder
GENERATED = DATASET_ROOT / ".raw"  # source files that this project makes itself
PACKAGED_DATASETS = {"ml-100k": ("recbole", Path("dataset_example") / "ml-100k")}  # datasets that come inside a package


@dataclass(frozen=True)
class Source:
    """Source of a known dataset.

    Attributes:
        kind: kind of source.
        path: folder or archive of its files; None if they have to be downloaded.
    """

    kind: str
    path: Path | None


def choose_source(
    name: str,
    kind: str,
    origin: str | None,
    read_category: Callable[[str], str | None],
    data_path: Path | None,
    raw_root: Path,
    *,
    may_download: bool,
) -> Source:
    """Choose the source of a known dataset: its usual files, raw files that were downloaded, or a download.

    Args:
        name: name of the dataset.
        kind: its usual kind of source.
        origin: description of the place where the files are published, for the message; None if unknown.
        read_category: function that returns Amazon's name of the category for a kind of source.
        data_path: folder that is searched first, or None.
        raw_root: folder with a subfolder of downloaded raw files for each kind.
        may_download: whether raw files may be downloaded.

    Raises:
        DataError: no source is found, and nothing can or may be downloaded.
        MissingDependency: the source is part of a package that is not installed.
    """
    category = read_category(kind)
    folders = _list_folders(name, data_path)
    if (found := _search(folders, list_main_files(name, kind, category))) is not None:
        return Source(kind, found)
    for other in list_kinds(name):
        raw, other_category = find_raw_source(other, name), read_category(other)
        if raw is None:
            continue
        path = locate_raw(raw, name, other_category, raw_root / other)
        if path is not None or may_download:
            return Source(other, path)
    return Source(kind, find_source(name, kind, category, origin, data_path))  # raises the error


def find_source(name: str, kind: str, category: str | None, origin: str | None, data_path: Path | None) -> Path:
    """Find the folder with the source files of a dataset.

    Args:
        name: name of the dataset.
        kind: kind of source.
        category: Amazon's name of the category; None for kinds without categories.
        origin: description of the place where the files are published, for the message; None if unknown.
        data_path: folder that is searched first, or None.

    Raises:
        DataError: none of the folders contains the source.
        MissingDependency: the source is part of a package that is not installed.
    """
    folders, files = _list_folders(name, data_path), list_main_files(name, kind, category)
    if (found := _search(folders, files)) is not None:
        return found
    if name in PACKAGED_DATASETS:
        raise MissingDependency(
            f"dataset {name} comes with RecBole, which is not installed; `{INSTALL_RECBOLE}` installs it, or name the "
            f"folder of its files (hellm-recbole run --data-path, hellm-recbole prepare --source, or {ENVIRONMENT})"
        )
    where = "" if origin is None else f" ({origin})"
    required = KINDS[kind].files.format(name=name, category=category)
    alternative = ""
    if fetched_kinds := [other for other in list_kinds(name) if find_raw_source(other, name) is not None]:
        alternative = f"; or let `hellm-recbole prepare {name} --from {fetched_kinds[0]}` fetch its raw files"
    raise DataError(
        f"dataset {name}: no {files[0]} in any of {', '.join(map(str, folders))}; put "
        f"{required}{where} into {SHARED / name}, or name their folder "
        f"(hellm-recbole run --data-path, hellm-recbole prepare --source, or {ENVIRONMENT}){alternative}"
    )


def _search(folders: Sequence[Path], files: Sequence[str]) -> Path | None:
    """Return the first folder that contains one of the files."""
    return next((folder for folder in folders if any((folder / file).is_file() for file in files)), None)


def _list_folders(name: str, data_path: Path | None) -> list[Path]:
    """List the folders that are searched for the source of a dataset, the first one first."""
    names = [name, *list_other_names(name)]
    folders = [] if data_path is None else [*(data_path / folder for folder in names), data_path]
    if os.environ.get(ENVIRONMENT):
        folders += [Path(os.environ[ENVIRONMENT]) / folder for folder in names]
    folders += [SHARED / folder for folder in names]
    if name in PACKAGED_DATASETS:
        package, subfolder = PACKAGED_DATASETS[name]
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            folders.append(Path(spec.submodule_search_locations[0]) / subfolder)
    if name == SYNTHETIC_SHOP:
        folders.append(write_synthetic_shop(GENERATED / name))
    return folders


def list_main_files(name: str, kind: str, category: str | None) -> list[str]:
    """List the main files of a source, the usual one first. A source contains at least one main file."""
    files = KINDS[kind].main_files
    names = [name, *list_other_names(name), *([name.lower()] if kind == "mmrec" else [])]  # see `read_mmrec`
    return list(dict.fromkeys(file.format(name=other, category=category) for other in names for file in files))
