"""Exported embeddings of items, aligned by token, read and checked.

`hellm_recbole.experiments.export` writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file

from hellm_recbole.errors import DataError
from hellm_recbole.system.files import SUMS, find_changed_file
from hellm_recbole.types import FloatArray, TokenArray

EMBEDDINGS = "embeddings"  # folder of exported embeddings in that of a run, and name of the file in it


def read_item_embeddings(folder: Path, item_tokens: TokenArray) -> FloatArray:
    """[I + 1, D] float32 item embeddings of an exported folder, in the order of `item_tokens`; row 0 is zero.

    Raises:
        DataError: files are missing, broken or not those that were exported, or an item has no row.
    """
    table, names = f"{EMBEDDINGS}.safetensors", "items.txt"
    if folder.is_dir() and not (folder / SUMS).is_file():
        raise DataError(
            f"embeddings {folder} have no {SUMS}: an earlier version exported them, or not to the end; export them "
            f"again with `run.py --export {EMBEDDINGS}`"
        )
    try:
        if (changed := find_changed_file(folder, (table, names))) is not None:
            raise DataError(
                f"{changed} is not what was exported (SHA-256 differs); remove the folder {folder}, and run.py "
                "exports it again from the checkpoint of that run"
            )
        tokens = (folder / names).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        values = load_file(folder / table)["items"]
    except (OSError, KeyError, UnicodeDecodeError, safetensors.SafetensorError) as error:
        raise DataError(f"embeddings {folder} cannot be read ({error}); export them again") from error
    place = {token: row for row, token in enumerate(tokens)}
    missing = [str(token) for token in item_tokens[1:] if token not in place]
    if missing or len(place) != len(tokens) or len(tokens) != len(values):
        what = f"lack item {missing[0]!r}" if missing else f"have {len(tokens)} tokens and {len(values)} rows"
        raise DataError(f"embeddings {folder} {what}; export them again on this dataset")
    rows = np.asarray(values, dtype=np.float32)[[place[str(token)] for token in item_tokens[1:]]]
    if not np.isfinite(rows).all():
        raise DataError(f"embeddings {folder} hold a value that is not finite; train that model again")
    return np.concatenate([np.zeros((1, rows.shape[1]), dtype=np.float32), rows])


def needs_export(folder: Path) -> bool:
    """Whether the embeddings of a finished run are missing, or an earlier version exported them, perhaps not whole."""
    return not (folder / SUMS).is_file()


def digest_tables(tables: Mapping[str, FloatArray]) -> dict[str, str]:
    """Model -> SHA-256 of its table."""
    return {name: hashlib.sha256(np.ascontiguousarray(table).data).hexdigest() for name, table in tables.items()}
