"""Item texts: chosen columns of the table of items, joined into one text for each item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hellm_recbole.errors import DataError


def read_item_texts(items: pd.DataFrame | None, ids: list[str], columns: Sequence[str], where: Path) -> list[str]:
    """Read the text of each item: its text columns, joined with ". ".

    Args:
        items: table with item_id and text columns, or None.
        ids: items to read; an item that is not in the table has no text.
        columns: names of columns; an entry `a|b` stands for the first of these columns that is not empty.
        where: source folder, for messages.

    Returns:
        Text of each item of `ids`; "" for an item without text.

    Raises:
        DataError: there is no table, or the table has no such column.
    """
    if items is None:
        raise DataError(
            f"{where} has no item texts for the columns {', '.join(columns)}; add the texts, or give --text without a "
            "value"
        )
    table = items.set_index("item_id").reindex(ids, fill_value="")
    texts = [""] * len(ids)
    for entry in columns:
        chosen = [""] * len(ids)
        for column in entry.split("|"):
            if column not in table:
                raise DataError(_describe_missing_column(column, columns, list(table.columns), where))
            chosen = [first or other for first, other in zip(chosen, table[column], strict=True)]
        texts = [f"{text}. {part}" if text and part else text or part for text, part in zip(texts, chosen, strict=True)]
    return texts


def _describe_missing_column(column: str, wanted: Sequence[str], existing: Sequence[str], where: Path) -> str:
    """Describe a missing text column, and how to prepare the dataset with those of the wanted columns that exist."""
    entries = ["|".join(part for part in entry.split("|") if part in existing) for entry in wanted]
    kept = " ".join(f"'{entry}'" if "|" in entry else entry for entry in entries if entry)
    example = f"; `hellm-recbole prepare --text {kept}` takes those of {', '.join(wanted)} that exist" if kept else ""
    return f"{where} has no text column {column!r}; choose --text from {', '.join(existing)}{example}"
