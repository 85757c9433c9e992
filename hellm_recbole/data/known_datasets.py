"""The datasets that the project knows: those with a file in `properties/dataset/`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from hellm_recbole.config.properties_files import list_names, read_file
from hellm_recbole.errors import DataError

OTHER_KINDS = "also"  # section of a dataset's settings file: other kinds of source that it can be prepared from
OTHER_NAMES = "names"  # key of a dataset's settings file: other names of it, which the files of its sources may have
DATASET_ROOT = Path("dataset")  # folder of the prepared datasets, in the working folder
_VARIANT = re.compile(r"(.+?)(-ties\d+)?")  # name of a dataset, and the ending that `prepare.py --shuffle-ties` adds


def list_datasets() -> list[str]:
    """List the datasets that have a file in `properties/dataset/`, sorted."""
    return list_names("dataset")


def list_kinds(name: str) -> list[str]:
    """List the kinds of source of a known dataset, its usual kind first; the list of an unknown dataset is empty."""
    if name not in list_datasets():
        return []
    layer = read_file("dataset", name)
    return [layer["kind"], *(layer.get(OTHER_KINDS) or {})]


def list_other_names(name: str) -> list[str]:
    """List the other names of a known dataset, such as Toys_and_Games of Toys; an unknown dataset has none."""
    if name not in list_datasets():
        return []
    return list(read_file("dataset", name).get(OTHER_NAMES) or [])


def resolve_name(name: str, folders: Collection[Path]) -> str:
    """Return the name under which a dataset is known here.

    A known dataset may be given by one of its other names, and in upper or lower case. A folder of exactly the given
    name comes first, because it may hold the user's own data.

    Args:
        name: name of a dataset, perhaps with the ending of a variant with ties shuffled.
        folders: folders with a subfolder for each dataset; they need not exist.

    Returns:
        The name of the known dataset; the given name if it means no known dataset.
    """
    known = list_datasets()
    existing = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    match = _VARIANT.fullmatch(name)
    if match is None or name in known or name in existing:
        return name
    base, ending = match[1].casefold(), match[2] or ""
    found = (dataset for dataset in known if base in map(str.casefold, (dataset, *list_other_names(dataset))))
    return next((f"{dataset}{ending}" for dataset in found), name)


def make_unknown_error(name: str, prepared: Sequence[str]) -> DataError:
    """Make the error about an unknown dataset; it suggests the known or prepared dataset with the nearest name."""
    names = sorted({*list_datasets(), *prepared})
    name_of_folded = {other.casefold(): known for known in names for other in (*list_other_names(known), known)}
    matches = difflib.get_close_matches(name.casefold(), name_of_folded, n=1, cutoff=0.5)
    hint = f"did you mean {name_of_folded[matches[0]]!r}?" if matches else f"known datasets: {', '.join(names)}"
    return DataError(
        f"unknown dataset {name!r}; {hint} (nor is it in the folder dataset/; to prepare your own data: "
        f"hellm-recbole prepare {name} --from KIND --source DIR)"
    )
