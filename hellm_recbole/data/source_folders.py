"""Find the folder with the source files of a dataset; those of the synthetic shop are made there."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from hellm_recbole.data.download.raw_files import list_fetched_kinds
from hellm_recbole.data.importers.sources import KINDS
from hellm_recbole.data.known_datasets import DATASET_ROOT, list_kinds, list_other_names
from hellm_recbole.data.synthetic_shop import SYNTHETIC_SHOP, write_synthetic_shop
from hellm_recbole.errors import DataError, MissingDependency
from hellm_recbole.system.packages import INSTALL_RECBOLE

ENVIRONMENT = "HELLM_DATA"
SHARED = Path("..") / "shared" / "datasets"  # relative to the current folder
GENERATED = DATASET_ROOT / ".raw"  # source files that this project makes itself
PACKAGED_DATASETS = {"ml-100k": ("recbole", Path("dataset_example") / "ml-100k")}  # datasets that come inside a package


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
    files = list_main_files(name, kind, category)
    for folder in folders:
        if any((folder / file).is_file() for file in files):
            return folder
    if name in PACKAGED_DATASETS:
        raise MissingDependency(
            f"dataset {name} comes with RecBole, which is not installed; `{INSTALL_RECBOLE}` installs it, or name the "
            f"folder of its files (run.py --data-path, prepare.py --source, or {ENVIRONMENT})"
        )
    where = "" if origin is None else f" ({origin})"
    required = KINDS[kind].files.format(name=name, category=category)
    alternative = ""
    if fetched_kinds := [kind for kind in list_kinds(name) if kind in list_fetched_kinds()]:
        alternative = f"; or let `benchmarks/prepare.py {name} --from {fetched_kinds[0]}` fetch its raw files"
    raise DataError(
        f"dataset {name}: no {files[0]} in any of {', '.join(map(str, folders))}; put "
        f"{required}{where} into {SHARED / name}, or name their folder "
        f"(run.py --data-path, prepare.py --source, or {ENVIRONMENT}){alternative}"
    )


def list_main_files(name: str, kind: str, category: str | None) -> list[str]:
    """List the main files of a source, the usual one first. A source contains at least one main file."""
    files = KINDS[kind].main_files
    return list(
        dict.fromkeys(
            file.format(name=other, category=category) for other in (name, *list_other_names(name)) for file in files
        )
    )
