"""The datasets that the project knows: those with a file in `properties/dataset/`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import DataError

OTHER_KINDS = "also"  # section of a dataset's settings file: other kinds of source that it can be prepared from


def list_datasets() -> list[str]:
    """List the datasets that have a file in `properties/dataset/`, sorted."""
    return sorted(path.stem for path in (find_properties() / "dataset").glob("*.yaml"))


def list_kinds(name: str) -> list[str]:
    """List the kinds of source of a known dataset, its usual kind first; the list of an unknown dataset is empty."""
    if name not in list_datasets():
        return []
    layer = load_yaml(find_properties() / "dataset" / f"{name}.yaml")
    return [layer["kind"], *(layer.get(OTHER_KINDS) or {})]


def make_unknown_error(name: str, prepared: Sequence[str]) -> DataError:
    """Make the error about an unknown dataset; it suggests the known or prepared dataset with the nearest name."""
    names = sorted({*list_datasets(), *prepared})
    name_of_folded = {known.casefold(): known for known in names}
    matches = difflib.get_close_matches(name.casefold(), name_of_folded, n=1, cutoff=0.5)
    hint = f"did you mean {name_of_folded[matches[0]]!r}?" if matches else f"known datasets: {', '.join(names)}"
    return DataError(
        f"unknown dataset {name!r}; {hint} (nor is it in the folder dataset/; to prepare your own data: "
        f"benchmarks/prepare.py {name} --from KIND --source DIR)"
    )
