"""Read and check exported embeddings of items and users, aligned by token.

`hellm_recbole.experiments.export` writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import SUMS, find_changed_file
from hellm_recbole.types import FloatArray, TokenArray


def read_item_embeddings(folder: Path, item_tokens: TokenArray) -> FloatArray:
    """Read the item embeddings of an exported folder.

    Args:
        folder: folder with the exported embeddings.
        item_tokens: [I + 1] source token of each item id.

    Returns:
        [I + 1, D] float32 embeddings in item-id order; row 0 is zero.

    Raises:
        DataError: a file is missing, broken or changed after the export, or an item has no row.
    """
    return _read_table(folder, "item", item_tokens)


def read_user_embeddings(folder: Path, user_tokens: TokenArray) -> FloatArray:
    """Read the user embeddings of an exported folder.

    Args:
        folder: folder with the exported embeddings.
        user_tokens: [U + 1] source token of each user id.

    Returns:
        [U + 1, D] float32 embeddings in user-id order; row 0 is zero.

    Raises:
        DataError: a file is missing, broken or changed after the export, or a user has no row.
    """
    return _read_table(folder, "user", user_tokens)


def _read_table(folder: Path, side: str, wanted: TokenArray) -> FloatArray:
    """Read one table of an exported folder.

    Args:
        folder: folder with the exported embeddings.
        side: item or user.
        wanted: [N + 1] source token of each id.

    Returns:
        [N + 1, D] float32 embeddings in the order of the ids; row 0 is zero.

    Raises:
        DataError: a file is missing, broken or changed after the export, or a token has no row.
    """
    table_file, token_file = f"{EMBEDDINGS}.safetensors", f"{side}s.txt"
    if folder.is_dir() and not (folder / SUMS).is_file():
        raise DataError(
            f"embeddings {folder} have no {SUMS}: the export was incomplete or made by an earlier version; export "
            f"them again with `run.py --export {EMBEDDINGS}`"
        )
    try:
        if (changed := find_changed_file(folder, (table_file, token_file))) is not None:
            raise DataError(
                f"{changed} has changed since the export (SHA-256 differs); remove the folder {folder}, and run.py "
                "exports it again from the checkpoint of that run"
            )
        tokens = (folder / token_file).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        values = load_file(folder / table_file)[f"{side}s"]
    except (OSError, KeyError, UnicodeDecodeError, safetensors.SafetensorError) as error:
        raise DataError(f"embeddings {folder} cannot be read ({error}); export them again") from error
    row_of_token = {token: row for row, token in enumerate(tokens)}
    missing = [str(token) for token in wanted[1:] if token not in row_of_token]
    if missing or len(row_of_token) != len(tokens) or len(tokens) != len(values):
        fault = f"lack {side} {missing[0]!r}" if missing else f"have {len(tokens)} tokens and {len(values)} rows"
        raise DataError(f"embeddings {folder} {fault}; export them again on this dataset")
    rows = np.asarray(values, dtype=np.float32)[[row_of_token[str(token)] for token in wanted[1:]]]
    if not np.isfinite(rows).all():
        raise DataError(f"embeddings {folder} contain a value that is not finite; train that model again")
    return np.concatenate([np.zeros((1, rows.shape[1]), dtype=np.float32), rows])


def needs_export(folder: Path) -> bool:
    """Return whether a finished run must be exported (again).

    This is so if its embeddings are missing, or if an earlier version exported them, because they may be incomplete.
    """
    return not (folder / SUMS).is_file()


def digest_tables(tables: Mapping[str, FloatArray]) -> dict[str, str]:
    """Compute the SHA-256 of the embedding table of each model."""
    return {name: hashlib.sha256(np.ascontiguousarray(table).data).hexdigest() for name, table in tables.items()}
