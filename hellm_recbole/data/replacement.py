"""Check whether a prepared dataset exists, is of the same inputs, and may be replaced."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.data.columnar_copy import COLUMNS
from hellm_recbole.data.dataset import CACHE
from hellm_recbole.data.diagnostics.card import CARD
from hellm_recbole.data.manifest import MANIFEST, Inputs, read_manifest
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import SUMS


def is_prepared(folder: Path) -> bool:
    """Return whether a folder of a prepared dataset exists.

    Raises:
        DataError: the folder exists, but it has no valid manifest, or a file that the manifest lists is missing.
    """
    if not folder.is_dir():
        return False
    read_manifest(folder)
    return True


def check_same_inputs(folder: Path, inputs: Inputs) -> None:
    """Check that a dataset was prepared from the same inputs.

    Raises:
        DataError: an input differs; the error names it.
    """
    previous, wanted = read_manifest(folder).inputs.to_json(), inputs.to_json()
    if differing := [key for key, value in wanted.items() if previous.get(key) != value]:
        raise DataError(f"{folder} was prepared with another {', '.join(differing)}; replace it with --fresh")


def check_replaceable(folder: Path, fresh: bool) -> None:
    """Check that a folder contains only files that this program wrote, so that it can be replaced.

    Raises:
        DataError: the folder is not a prepared dataset, or it contains other files.
    """
    if not folder.exists():
        return
    if not (folder / MANIFEST).is_file():
        raise DataError(
            f"{folder} exists but was not prepared by this program ({MANIFEST} is missing); move it to another place "
            "first"
        )
    if fresh:
        own = {CARD, SUMS, MANIFEST, CACHE, COLUMNS, *_list_prepared_files(folder)}
        if foreign := sorted(path.name for path in folder.iterdir() if path.name not in own):
            others = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise DataError(
                f"{folder / foreign[0]}{others} was not prepared by this program and would be lost; move it to another "
                "place, and move features with their token file to the source"
            )


def _list_prepared_files(folder: Path) -> list[str]:
    """List the names of the prepared files.

    If the manifest is broken, the names are read from the file of checksums, so that --fresh can replace the dataset.
    """
    try:
        return list(read_manifest(folder).files)
    except DataError:
        if not (folder / SUMS).is_file():
            return []
        return [line.partition("  ")[2] for line in (folder / SUMS).read_text("utf-8", "replace").split("\n") if line]
