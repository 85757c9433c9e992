"""What an importer is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """What an importer needs to know beside the folder.

    Attributes:
        name: of the dataset.
        category: of Amazon's; "" where there is none.
        columns: field (user, item, time, split) -> the source's name of its column.
        table: file name of a table that is not called as the dataset is; None looks for one that is.
        progress: show a progress bar where reading takes long.
    """

    name: str
    category: str
    columns: Mapping[str, str]
    table: str | None
    progress: bool
