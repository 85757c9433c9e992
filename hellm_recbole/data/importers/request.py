"""Request to an importer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """Information that an importer needs in addition to the folder of the source.

    Attributes:
        name: name of the dataset.
        category: Amazon's name of the category; "" for other sources.
        columns: field (user, item, time, split) -> name of its column in the source.
        table: file name of the table; None looks for a file with the name of the dataset.
        progress: whether to show a progress bar while large files are read.
        other_names: other names of the dataset, which its files may have.
    """

    name: str
    category: str
    columns: Mapping[str, str]
    table: str | None
    progress: bool
    other_names: tuple[str, ...] = ()
